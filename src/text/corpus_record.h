// What is to be said of a corpus besides its documents, kept beside its tokens.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/text/survey_corpus.h"

namespace coppice {

/// What is known of a tokenized domain besides its tokens, as data/corpus/<domain>.json holds it: documents, records
/// left out, held-out texts and texts for tuning that its training part repeats.
Json corpus_record(const CorpusSurvey& survey, size_t domain, const RepeatedTexts& held, const RepeatedTexts& tuning);
/// Something that a reader of the results should know of the corpus.
struct CorpusNote {
  std::string about, text;
  bool spoils = false;  // the numbers of the report
};
/// Bad records, held-out texts that were trained on: of all tokenized domains. None for runs that kept no record of it.
std::vector<CorpusNote> corpus_notes(const std::filesystem::path& data_folder);

}  // namespace coppice
