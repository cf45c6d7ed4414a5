// The first look at a corpus, before any work: every document is read once, so that what is wrong with it is known, and
// what is to be known of all of it at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/documents.h"

namespace coppice {

struct CorpusDomain {
  std::string name;
  std::filesystem::path path;
  CorpusOptions reading;
  bool is_gone = false;  // it is tokenized already, and its files need not be there
};

struct SurveyOptions {
  std::vector<CorpusDomain> domains;
  double heldout_share = 0, tuning_share = 0;
  std::optional<uint64_t> sample_bytes = {};  // of each domain; nothing = no sample
};

struct CorpusSurvey {
  std::vector<std::string> domains;  // names
  std::vector<std::string>
      sample;  // for the tokenizer: each domain's documents with the smallest id hashes; empty unless asked for
  std::vector<CorpusReport> reports;  // of each domain
  // Of each domain: text_hash of its held-out documents and of those for tuning, sorted, each once.
  std::vector<std::vector<uint64_t>> held_texts, tuning_texts;
};

/// Says what was left out. UserError::bad_file as for_each_document; Stopped on a stop signal.
CorpusSurvey survey_corpus(const SurveyOptions& options);

/// Counts, while a domain's training part is read, which texts of a split of which domains stand there as well.
class RepeatedTexts {
 public:
  /// `texts`: CorpusSurvey::held_texts or ::tuning_texts, which stay.
  explicit RepeatedTexts(const std::vector<std::vector<uint64_t>>& texts);
  void look(std::string_view training_text);
  /// For each domain: how many of its different texts came by.
  std::vector<uint64_t> counts() const;

 private:
  const std::vector<std::vector<uint64_t>>& texts_;
  std::vector<std::vector<bool>> seen_;  // as texts_
};

}  // namespace coppice
