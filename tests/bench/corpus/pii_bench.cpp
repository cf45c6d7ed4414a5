// pii_bench DOCUMENTS...: finding and masking every kind of personal data, in MB of text a second of processor time.
// Beside it: datatrove_peers.py pii, which knows mail and IPv4 addresses.
#include "src/corpus/personal/personal.h"
#include "tests/bench/corpus/text_bench.h"

using namespace coppice;

int main(int argc, char** argv) {
  std::vector<Document> documents;
  for (int i = 1; i < argc; ++i)
    for (Document& document : bench::read_documents(argv[i])) documents.push_back(std::move(document));
  if (documents.empty()) return 2;
  const PersonalFinder finder;
  std::vector<PersonalSpan> spans;
  double bytes = 0, found = 0;
  for (const Document& document : documents) bytes += static_cast<double>(document.text.size());
  const std::vector<double> times =
      bench::median_s({{"pii", [&] {
                          found = 0;
                          for (const Document& document : documents) {
                            finder.find(document.text, spans);
                            found += static_cast<double>(spans.size());
                            if (!spans.empty()) replaced(document.text, spans, finder, Replacement::placeholder, 0);
                          }
                        }}});
  bench::emit("pii",
              {{"median_s", times[0]}, {"mb", bytes / 1e6}, {"mb_per_s", bytes / 1e6 / times[0]}, {"spans", found}});
}
