// language_bench DOCUMENTS...: our slices against CLD2 on whole texts: MB/s, and on how many documents both say the
// same, of all and of those that CLD2 finds to be of one language (reliable, at least 90%).
#include <cstdio>  // before CLD2's header, which needs it

#include <cld2/public/compact_lang_det.h>

#include "src/corpus/language/language.h"
#include "tests/bench/corpus/text_bench.h"

using namespace coppice;

namespace {

struct Whole {
  std::string code;
  bool one_language = false;
};

Whole whole_text(const std::string& text) {
  CLD2::Language languages[3] = {};
  int percents[3] = {}, letters = 0;
  bool reliable = false;
  CLD2::DetectLanguageSummary(text.data(), static_cast<int>(text.size()), true, languages, percents, &letters,
                              &reliable);
  return {CLD2::LanguageCode(languages[0]), reliable && percents[0] >= 90};
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<Document> documents;
  for (int i = 1; i < argc; ++i)
    for (Document& document : bench::read_documents(argv[i])) documents.push_back(std::move(document));
  if (documents.empty()) return 2;
  double bytes = 0, same = 0, one = 0, same_one = 0;
  for (const Document& document : documents) {
    const Whole whole = whole_text(document.text);
    const bool is_same = detect_language(document.text).code == whole.code;
    bytes += static_cast<double>(document.text.size());
    same += is_same;
    one += whole.one_language;
    same_one += whole.one_language && is_same;
  }
  const std::vector<double> times = bench::median_s({
      {"slices",
       [&] {
         for (const Document& document : documents) detect_language(document.text);
       }},
      {"cld2",
       [&] {
         for (const Document& document : documents) whole_text(document.text);
       }},
  });
  bench::emit("language", {{"documents", static_cast<double>(documents.size())},
                           {"mb", bytes / 1e6},
                           {"slices_mb_s", bytes / 1e6 / times[0]},
                           {"cld2_mb_s", bytes / 1e6 / times[1]},
                           {"ratio", times[1] / times[0]},
                           {"same", same / static_cast<double>(documents.size())},
                           {"of_one_language", one},
                           {"same_of_these", same_one / one}});
}
