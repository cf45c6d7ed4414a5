// The first look at a corpus, before any work: every document is read once, so that what is wrong with it is known, and
// what is to be known of all of it at once.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/language/recipe.h"
#include "src/base/json.h"
#include "src/text/documents.h"

namespace coppice {

/// How the documents of a domain are read.
CorpusOptions corpus_options(const Recipe& recipe, const DomainOptions& domain);

struct CorpusSurvey {
  std::vector<std::string>
      sample;  // for the tokenizer: each domain's documents with the smallest id hashes; empty unless asked for
  std::vector<CorpusReport> reports;  // of each domain
  std::vector<std::vector<uint64_t>>
      held_texts;  // of each domain: text_hash of its held-out documents, sorted, each once
};

/// Says what was left out. UserError::bad_file as for_each_document; Stopped on a stop signal.
CorpusSurvey survey_corpus(const Recipe& recipe, bool with_sample);

/// Counts, while a domain's training part is read, which held-out texts of which domains stand there as well.
class RepeatedTexts {
 public:
  explicit RepeatedTexts(const CorpusSurvey& survey);
  void look(std::string_view training_text);
  /// For each domain: how many of its different held-out texts came by.
  std::vector<uint64_t> counts() const;

 private:
  const CorpusSurvey& survey_;
  std::vector<std::vector<bool>> seen_;  // as held_texts
};

/// What is known of a tokenized domain besides its tokens, as data/corpus/<domain>.json holds it: documents, records
/// left out, held-out texts that it repeats.
Json corpus_record(const Recipe& recipe, size_t domain, const CorpusSurvey& survey, const RepeatedTexts& repeated);
/// Something that a reader of the results should know of the corpus.
struct CorpusNote {
  std::string about, text;
  bool spoils = false;  // the numbers of the report
};
/// Bad records, held-out texts that were trained on: of all tokenized domains. None for runs that kept no record of it.
std::vector<CorpusNote> corpus_notes(const std::filesystem::path& data_folder);

}  // namespace coppice
