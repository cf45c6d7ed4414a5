// The steps that the documents of one file go through in one pass: the one place where rules decide.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/corpus/run/corpus_settings.h"
#include "src/corpus/run/counts.h"
#include "src/corpus/run/step_times.h"

namespace coppice {

/// A step of the chain: it looks at documents by itself, or says what the whole corpus has decided. With neither, the
/// step passes the file by, and its rules measure nothing.
struct ChainLink {
  const CorpusStep* step = nullptr;
  DocumentLook* look = nullptr;
  GroupDecisions* decisions = nullptr;
};

/// Where a document has gone.
struct Removed {
  const CorpusStep* step = nullptr;
  Removal removal;
  std::string text;  // as it came to the step that removed it, with keep_removed_text
};

struct ChainOptions {
  double doc_timeout_s = 10;
  bool keep_removed_text = false;
};

class DocumentChain {
 public:
  DocumentChain(std::vector<ChainLink> links, ChainOptions options);
  /// Sends a document through. Every rule measures it with `all`; without it the first rule that drops ends its way,
  /// past decisions, which are asked for in order. Nothing is returned where it stays. Of a document with another text
  /// (DocumentLook::other) that one counts, and is measured, if it alone stays.
  std::optional<Removed> look(Document& document, bool all);
  /// Of the document at hand: a value for every rule of every link, NaN where it was not measured.
  const std::vector<float>& values() const { return values_; }
  const std::map<std::string, StepCounts>& counts() const { return counts_; }
  const std::vector<StepTime>& times() const { return times_; }  // of each link, of all documents so far

 private:
  struct Verdict {
    bool changed = false;
    std::vector<size_t> drops;  // rules, in their order; the two of the engine behind those of the step
  };
  /// What one link said.
  struct Passed {
    size_t link = 0;
    uint64_t bytes = 0, bytes_left = 0;
    bool seen = false, measured = false;  // seen: nothing in front had removed it
    Verdict verdict;
  };
  /// What became of a document.
  struct Way {
    std::vector<Passed> passed;
    std::vector<float> values;
    std::optional<Removed> removed;
    bool measuring = false;
  };
  Verdict ask(const ChainLink& link, Document& document, bool all, std::string& details);
  void go(size_t begin, Document& document, bool all, Way& way, std::optional<Document>& other, Way& to_other);
  void count(const Way& way);

  std::vector<ChainLink> links_;
  ChainOptions options_;
  std::map<std::string, StepCounts> counts_;
  std::vector<StepCounts*> counts_of_;  // of each link
  std::vector<StepTime> times_;
  std::vector<double> asked_;
  std::vector<float> values_;
};

}  // namespace coppice
