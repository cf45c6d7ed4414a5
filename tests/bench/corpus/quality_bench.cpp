// quality_bench DOCUMENTS...: the four rule sets of the step `quality` with all their values, and without what comes
// behind the first drop; what words and the normal form take of it. The peer: datatrove_chain of data_peers.py filters.
#include "src/text/words/normal_form.h"
#include "src/text/words/words.h"
#include "tests/bench/corpus/text_bench.h"
#include "tests/corpus/step_of.h"

using namespace coppice;

int main(int argc, char** argv) {
  std::vector<Document> documents;
  double bytes = 0;
  for (int i = 1; i < argc; ++i)
    for (Document& document : bench::read_documents(argv[i])) {
      bytes += static_cast<double>(document.text.size());
      documents.push_back(std::move(document));
    }
  if (documents.empty()) return 2;
  const ScratchFolder scratch("quality-bench");
  const auto step = test::step_of(scratch, "kind = \"quality\"\nterminal = false\nwords = \"english\"\n");
  const std::vector<Rule> rules = step->rules();
  const std::unique_ptr<DocumentLook> look = dynamic_cast<const DocumentStep&>(*step).start();
  double kept = 0;
  const auto look_at_all = [&](bool all) {
    kept = 0;
    for (const Document& document : documents) {
      Document looked = document;
      std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
      look->look(looked, values, all);
      bool drops = false;
      for (size_t i = 0; i < rules.size(); ++i) drops |= rules[i].drops(values[i]);
      kept += !drops;
    }
  };
  WordSplitter splitter(WordRule::english);
  std::vector<std::string_view> words;
  std::string normal;
  const auto emit = [&](const char* name, double seconds) {
    bench::emit(name, {{"documents", static_cast<double>(documents.size())},
                       {"mb", bytes / 1e6},
                       {"median_s", seconds},
                       {"mb_per_s", bytes / 1e6 / seconds},
                       {"kept", kept}});
  };
  const std::vector<double> times = bench::median_s({{"all_values", [&] { look_at_all(true); }},
                                                     {"first_drop", [&] { look_at_all(false); }},
                                                     {"words",
                                                      [&] {
                                                        for (const Document& document : documents)
                                                          splitter.split(document.text, words);
                                                      }},
                                                     {"normal_form", [&] {
                                                        for (const Document& document : documents)
                                                          normal_form(document.text, normal);
                                                      }}});
  const char* names[] = {"all_values", "first_drop", "words", "normal_form"};
  for (size_t i = 0; i < times.size(); ++i) emit(names[i], times[i]);
}
