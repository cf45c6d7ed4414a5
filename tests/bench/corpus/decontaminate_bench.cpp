// decontaminate_bench DOCUMENTS BENCHMARK...: n-grams of benchmarks looked for in every document, from the text on, in
// MB of text a second of processor time, for both policies. Beside it: datatrove_peers.py decontaminate.
#include "src/corpus/decontaminate/ngram_index.h"
#include "tests/bench/corpus/text_bench.h"

using namespace coppice;

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::vector<Document> documents = bench::read_documents(argv[1]);
  std::vector<Benchmark> benchmarks;
  for (int i = 2; i < argc; ++i) benchmarks.push_back(read_benchmark(argv[i]));
  double bytes = 0;
  for (const Document& document : documents) bytes += static_cast<double>(document.text.size());
  const NgramIndex longest(benchmarks, {}), all(benchmarks, {.every_length = true});
  std::vector<double> hits(2);
  const auto search = [&](const NgramIndex& index, double& count) {
    NgramSearch search(index);
    count = 0;
    for (const Document& document : documents) count += static_cast<double>(search.find(document.text).size());
  };
  const std::vector<double> times =
      bench::median_s({{"longest", [&] { search(longest, hits[0]); }}, {"all", [&] { search(all, hits[1]); }}});
  for (size_t i = 0; i < times.size(); ++i)
    bench::emit(i == 0 ? "longest" : "all", {{"median_s", times[i]},
                                             {"mb", bytes / 1e6},
                                             {"mb_per_s", bytes / 1e6 / times[i]},
                                             {"ngrams", i == 0 ? longest.size() : all.size()},
                                             {"hits", hits[i]}});
}
