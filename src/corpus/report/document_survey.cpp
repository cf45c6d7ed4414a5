#include "src/corpus/report/document_survey.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

#include "src/corpus/maths/domains.h"
#include "src/corpus/report/kept_documents.h"
#include "src/text/document_metadata.h"

namespace coppice {

DocumentSurvey survey_documents(const CompleteCorpus& corpus, const std::vector<SourceFile>& files) {
  DocumentSurvey survey{.files = files.size()};
  std::unordered_map<std::string, uint64_t> domains;
  for (const SourceFile& file : files)
    read_kept(corpus, file, [&](const Document& document) {
      survey.documents.add(document.text.size());
      ++survey.languages[metadata_text(document, "language")];
      ++survey.licences[document.license];
      if (std::string host = host_of(member_text(document, "url")); !host.empty()) ++domains[std::move(host)];
      const auto characters =
          std::ranges::count_if(document.text, [](unsigned char byte) { return (byte & 0xC0) != 0x80; });
      ++survey.lengths[std::min<size_t>(static_cast<size_t>(std::bit_width(static_cast<uint64_t>(characters))), 32)];
    });
  survey.domains.assign(domains.begin(), domains.end());
  std::ranges::sort(survey.domains, [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  return survey;
}

}  // namespace coppice
