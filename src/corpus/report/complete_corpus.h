// A corpus that is complete, as its folder tells: what the reports and the questions behind them start from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"
#include "src/corpus/run/counts.h"
#include "src/corpus/sources/source.h"
#include "src/corpus/step.h"

namespace coppice {

struct ToldRule {
  Rule rule;
  RuleCounts counts;
  std::map<std::string, Amount> first_by_source;
  /// Whether it compares a value with a limit: rules that measure nothing have the values 0 and 1.
  bool has_threshold() const;
};

struct ToldStep {
  std::string name, kind, fingerprint;
  Amount seen, kept;
  uint64_t changed = 0, measured = 0;
  std::vector<ToldRule> rules;
  Counts counted;                               // by the step itself
  std::map<std::string, StepCounts> by_source;  // seen and kept alone, of the sources that it looks at
};

struct ToldSource {
  SourceOptions options;  // name, text, licence
  uint64_t files = 0, records = 0;
  Amount in, out;
  std::map<std::string, uint64_t> passed, bad;
};

struct CompleteCorpus {
  std::filesystem::path root;
  Json made_of;  // corpus_identity()
  Amount in, out;
  std::vector<ToldSource> sources;
  std::vector<ToldStep> steps;
  std::vector<SourceFile> files;  // sorted by name; paths are those of inputs.json, empty without it
  std::vector<std::string> alarms, warnings;

  /// UserError::recipe naming `where` and the names there are.
  const ToldStep& step(std::string_view name, std::string_view where) const;
  const ToldRule& rule(const ToldStep& step, std::string_view name, std::string_view where) const;
  std::filesystem::path documents(const SourceFile& file) const;
  std::filesystem::path removed(const ToldStep& step, const SourceFile& file) const;
  std::filesystem::path values(const SourceFile& file) const;
  /// What a group step has left for people: stats/groups/<step>/<name>.
  std::filesystem::path left_by(const ToldStep& step, std::string_view name) const;
};

/// UserError::bad_file for a folder that holds no complete corpus, and for damage.
CompleteCorpus open_complete_corpus(const std::filesystem::path& root);
/// The same of a report.json that is not written yet; sources.json and inputs.json are.
CompleteCorpus complete_corpus(const std::filesystem::path& root, const Json& report);

/// `< 50, > 100000`: what drops.
std::string limits_text(const Rule& rule);

}  // namespace coppice
