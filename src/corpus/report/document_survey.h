// What the documents of a complete corpus are: languages, licences, domains, lengths.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

struct DocumentSurvey {
  size_t files = 0;  // that were read
  Amount documents;
  std::map<std::string, uint64_t> languages, licences;    // "" = none
  std::vector<std::pair<std::string, uint64_t>> domains;  // of documents with an address, the most frequent first
  std::array<uint64_t, 33> lengths{};                     // by characters: [k] has 2^(k-1) <= length < 2^k, [0] none
};

DocumentSurvey survey_documents(const CompleteCorpus& corpus, const std::vector<SourceFile>& files);

}  // namespace coppice
