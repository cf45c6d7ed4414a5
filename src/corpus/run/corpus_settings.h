// What makes a corpus: the [data] table of a recipe, or of a file of its own, with its sources and steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/cli/options.h"
#include "src/corpus/sources/source.h"
#include "src/corpus/step.h"

namespace coppice {

/// A [[data.step]].
struct CorpusStep {
  std::string kind;
  std::string name;               // how outputs, reports and columns call it
  std::string where;              // file:line
  std::vector<std::string> only;  // sources that it looks at; empty: all
  std::shared_ptr<const Step> step;
  std::vector<Rule> rules;  // of the step
  std::string options;      // those that decide, as TOML
  std::string fingerprint;  // of kind, options and inputs

  const DocumentStep* by_document() const { return dynamic_cast<const DocumentStep*>(step.get()); }
  const GroupStep* by_group() const { return dynamic_cast<const GroupStep*>(step.get()); }
  bool looks_at(const SourceOptions& source) const;
};

struct CorpusSettings {
  enum class Values { all, sample, none };

  std::string memory = "4GB";
  std::string values = "all";
  double max_bad_share = 0.001;
  int threads = 0;
  double doc_timeout_s = 10;

  template <class Field>
  void visit_fields(Field& field) {
    field("memory", memory, Mark::rounding, "of every task; sorting and tables obey it");
    field("values", values, Mark::decides,
          "documents that every rule measures: all, sample (1%) or none, where the first rule that drops is the last");
    field("max_bad_share", max_bad_share, Mark::cadence,
          "share of a file's records that may be bad (100 may always); 1 = all");
    field("threads", threads, Mark::rounding, "of every task, a file each; 0 = all cores");
    field("doc_timeout_s", doc_timeout_s, Mark::decides,
          "CPU seconds of a document in a step, after which it goes; 0 = without end");
  }

  uint64_t memory_bytes = 0;
  Values kept_values = Values::all;
  std::vector<SourceOptions> sources;
  std::vector<CorpusStep> steps;
};

/// Reads [data]'s keys, [[data.source]] and [[data.step]]; who owns the table finishes it. UserError::recipe with
/// file:line for what is unknown, given twice or out of range, for public data without licence, homepage, date or a
/// step for personal data, and for documents of a corpus whose sources are closed to stages that the new one is not.
CorpusSettings read_corpus(OptionTable& data, std::span<const StepKind* const> kinds = step_kinds());

/// A file that holds [data] alone.
CorpusSettings load_corpus(const std::filesystem::path& file, const std::vector<Override>& overrides,
                           const std::vector<std::string>& unset,
                           std::span<const StepKind* const> kinds = step_kinds());

}  // namespace coppice
