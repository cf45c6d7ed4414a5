// Ids that several documents have are found with both places, in any number of documents.
#include "src/text/repeated_ids.h"

#include <doctest/doctest.h>

#include "tests/scratch_folder.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("repeated ids: both places are named, across files and within one, numbers and text alike") {
    const ScratchFolder folder;
    folder.write("corpus/a.jsonl",
                 "{\"id\": 7, \"text\": \"x\"}\n\n{\"id\": \"8\", \"text\": \"x\"}\n{\"text\": \"no id\"}\n");
    folder.write("corpus/b.jsonl",
                 "{\"id\": \"7\", \"text\": \"y\"}\n{\"text\": \"no id\"}\n{\"id\": \"8\", \"text\": \"x\"}\n{\"id\": "
                 "\"8\", \"text\": \"z\"}\n");
    folder.write("corpus/c.txt", "text");
    RepeatedIds ids;
    for_each_document(folder.path / "corpus", [&](Document&& document) { ids.look(document); });
    CHECK(ids.count() == 3);
    CHECK(ids.first() == std::vector<std::string>{"'7' in a.jsonl:1 and b.jsonl:1", "'8' in a.jsonl:3 and b.jsonl:3",
                                                  "'8' in a.jsonl:3 and b.jsonl:4"});
  }

  TEST_CASE("repeated ids: every one of many documents is known, and only the first ten repetitions are kept") {
    RepeatedIds ids;
    const auto file = std::make_shared<const std::string>("many.jsonl");
    const auto look = [&](uint64_t number, uint64_t line) {
      Document document;
      document.id = std::to_string(number);
      document.file = file;
      document.line = line;
      ids.look(document);
    };
    for (uint64_t i = 0; i < 100'000; ++i) look(i, i + 1);
    CHECK(ids.count() == 0);
    for (uint64_t i = 0; i < 100'000; i += 1000) look(i, 200'000 + i);
    CHECK(ids.count() == 100);
    REQUIRE(ids.first().size() == 10);
    CHECK(ids.first()[1] == "'1000' in many.jsonl:1001 and many.jsonl:201000");
  }
}
