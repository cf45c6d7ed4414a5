// The recipe of a compression as TOML with comments, and what is said of it before it runs.
#pragma once

#include <string>

#include "recipes/compress/request.h"
#include "recipes/compress/schedule.h"
#include "recipes/compress/source.h"
#include "recipes/compress/target.h"

namespace coppice {

/// Everything that a compression has decided.
struct Compression {
  const CompressRequest& request;
  const CompressSource& source;
  const CompressText& text;
  const CompressTarget& target;
  const Schedule& schedule;
  const CompressSpeeds& speeds;
  std::string name;  // of recipe and run
};

/// Stages: dense (import), masks, pruned, cut_activation, labels, core, scores, release. Its first line is
/// request_line().
std::string compress_recipe(const Compression& compression);
/// What it will cut, learn, label, recover, write, and what it cannot promise: a paragraph each. `seconds`: what the
/// schedule is held to take.
std::string compress_plan(const Compression& compression, double seconds);

}  // namespace coppice
