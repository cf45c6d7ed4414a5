// The hash of a corpus.
#include "src/text/corpus_sha256.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "src/base/errors.h"
#include "tests/scratch_folder.h"

namespace fs = std::filesystem;
using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("corpus hash: files that are not read do not count, names and bytes of the others do") {
    const ScratchFolder scratch("corpus_hash");
    const fs::path corpus = scratch.path / "corpus";
    spill(corpus / "a.txt", "one");
    spill(corpus / "sub" / "b.jsonl", "{\"text\": \"two\"}\n");
    const std::string hash = corpus_sha256(corpus);
    spill(corpus / "README.md", "about this folder");
    CHECK(corpus_sha256(corpus) == hash);
    fs::rename(corpus / "a.txt", corpus / "c.txt");
    CHECK(corpus_sha256(corpus) != hash);
    fs::rename(corpus / "c.txt", corpus / "a.txt");
    CHECK(corpus_sha256(corpus) == hash);
    spill(corpus / "a.txt", "One");
    CHECK(corpus_sha256(corpus) != hash);

    const auto code_of = [](const fs::path& path) {
      try {
        corpus_sha256(path);
      } catch (const Error& error) {
        return static_cast<int>(error.code());
      }
      return 0;
    };
    fs::create_directories(scratch.path / "other");
    spill(scratch.path / "other" / "README.md", "no corpus");
    CHECK(code_of(scratch.path / "other") == 3);
    CHECK(code_of(scratch.path / "absent") == 3);
    fs::create_symlink("loop.txt", corpus / "loop.txt");
    CHECK(code_of(corpus) == 3);
    CHECK(code_of(corpus / "loop.txt") == 3);
  }
}
