// The model that is to be compressed, and the text it shall learn from, as far as they tell before any work.
#pragma once

#include <cstdint>
#include <string>

#include "src/model/config.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

struct CompressSource {
  std::string path;
  std::string name;     // of the folder or file, as recipes are named
  ModelConfig config;   // as a run imports it: without padded rows of the vocabulary
  int64_t longest = 0;  // tokens that it sees whole
  Tokenizer tokenizer;

  int64_t width() const { return config.intermediate_size.front(); }
};

/// Reads config and tokenizer alone. UserError::recipe for a path that is no model, or one whose layers differ in
/// width; UserError::bad_file for damaged files.
CompressSource open_source(const std::string& path);

struct CompressText {
  bool whole = false;               // everything was read
  double documents = 0, bytes = 0;  // estimated from what was read, unless it was all
  double bytes_per_token = 1;       // under the model's tokenizer
  double encode_s = 0;              // seconds a byte on one thread
  double tokens() const { return bytes / bytes_per_token; }
};

/// Reads a sample of at most 2 MB from up to 32 of its files. UserError as for_each_document (exit 3), and
/// UserError::recipe where nothing lies.
CompressText look_at_text(const std::string& path, const Tokenizer& tokenizer);

/// Documents set aside: one in fifty, more where there are few, so that about ten are.
double heldout_share(const CompressText& text);

}  // namespace coppice
