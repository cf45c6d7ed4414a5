// Memory that a corpus takes: the option `memory` is a limit, whatever the number of documents.
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "tests/child_process.h"
#include "tests/corpus/run/real_steps.h"

using namespace coppice;
using test::RealCorpus;

#ifndef __SANITIZE_ADDRESS__  // which keeps what is freed
namespace {

constexpr uint64_t kFiles = 6, kDocuments = 40'000;  // of a file

/// Of resident memory of this program, in bytes.
double peak_now() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return 1024 * std::stod(line.substr(6));
  throw InternalError("/proc/self/status has no VmHWM");
}

/// What a run adds to the peak of a program that does nothing else: other tests would leave memory behind, which serves
/// it unseen or in pieces. So this one is started anew, for the case below that is skipped otherwise.
double peak_of(const RealCorpus& corpus, const std::string& memory, const std::string& out) {
  corpus.settings("[[data.step]]\nkind = \"dedup\"\n", "memory = \"" + memory + "\"\nvalues = \"none\"\nthreads = 1\n");
  const int code = run_in_child([&] {
    ::setenv("COPPICE_TEST_FOLDER", corpus.scratch.path.c_str(), 1);
    ::setenv("COPPICE_TEST_OUT", out.c_str(), 1);
    ::execl("/proc/self/exe", "corpus_test", "--no-skip", "--test-case=memory: a run by itself", nullptr);
    throw InternalError("the tests could not be started");
  });
  REQUIRE(code == 0);
  return std::stod(slurp(corpus.scratch / (out + ".peak")));
}

}  // namespace

TEST_SUITE("slow") {
  TEST_CASE("memory: dedup of more than it holds takes 1.2 times of it at most") {
    const RealCorpus corpus;
    std::string lines;
    for (uint64_t file = 0; file < kFiles; ++file) {
      lines.clear();
      for (uint64_t i = 0; i < kDocuments; ++i) {
        const uint64_t number = file * kDocuments + i, text = number % 3 == 0 ? number / 2 : number;
        lines += "{\"text\":\"";
        for (uint64_t word = 0; word < 8; ++word) {
          uint64_t bits = (8 * text + word) * 0x9e3779b97f4a7c15;
          for (int letter = 0; letter < 7; ++letter, bits /= 26) lines += static_cast<char>('a' + bits % 26);
          lines += ' ';
        }
        lines += "\"}\n";
      }
      spill(corpus.scratch / fmt::format("in/made/{}.jsonl", file), lines);
    }
    constexpr double kMemory = 16e6;  // bands alone are 54 MB: 14 of 16 bytes a document
    constexpr double kFixed = 12e6;   // code, buffers of files, compression: what every run takes
    const double small = peak_of(corpus, "16MB", "small"), large = peak_of(corpus, "4GB", "large");
    CAPTURE(small);
    CHECK(small <= 1.2 * kMemory + kFixed);
    CHECK(large > 2 * kMemory + kFixed);  // what it would take without a limit
    CHECK(slurp(corpus.scratch / "small/report.md") == slurp(corpus.scratch / "large/report.md"));
  }

  TEST_CASE("memory: a run by itself" * doctest::skip()) {
    const char* const folder = std::getenv("COPPICE_TEST_FOLDER");
    REQUIRE_MESSAGE(folder != nullptr, "started by the case above");
    const std::filesystem::path out = std::filesystem::path(folder) / std::getenv("COPPICE_TEST_OUT");
    const CorpusSettings settings = load_corpus(std::filesystem::path(folder) / "corpus.toml", {}, {});
    const double before = peak_now();
    CHECK(run_corpus(settings, {.out = out}).documents.documents > 0);
    spill(out.string() + ".peak", fmt::format("{}", peak_now() - before));
  }
}
#endif
