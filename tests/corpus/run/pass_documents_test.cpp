// Documents between two passes: nothing is lost, damage is found.
#include "src/corpus/run/pass_documents.h"

#include <doctest/doctest.h>

#include <cmath>

#include "src/corpus/deadline.h"
#include "src/corpus/run/document_chain.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

namespace coppice {

TEST_SUITE("unit") {
  TEST_CASE("pass documents: everything that a document holds") {
    const ScratchFolder scratch;
    Document full{.id = "a\n1",
                  .source = "s",
                  .text = std::string("\0x\xC3\xA9", 4),
                  .license = "MIT",
                  .file = std::make_shared<std::string>("in/a.jsonl"),
                  .line = uint64_t{1} << 40,
                  .is_page = true,
                  .is_source_license = true,
                  .fields = "\"n\":1e400",
                  .metadata = "\"url\":\"u\"",
                  .scores = {{"s", 0.1}}};
    PassWriter writer(scratch / "pass");
    writer.write(7, full);
    writer.write(9, {});
    writer.commit();
    std::vector<uint32_t> numbers;
    std::vector<Document> documents;
    uint64_t bytes = 0;
    read_pass(
        scratch / "pass",
        [&](uint32_t number, Document&& document) {
          numbers.push_back(number);
          documents.push_back(std::move(document));
        },
        &bytes);
    CHECK(numbers == std::vector<uint32_t>{7, 9});
    REQUIRE(documents.size() == 2);
    CHECK(documents[0].id == full.id);
    CHECK(documents[0].source == full.source);
    CHECK(documents[0].text == full.text);
    CHECK(documents[0].license == full.license);
    CHECK(*documents[0].file == *full.file);
    CHECK(documents[0].line == full.line);
    CHECK(documents[0].is_page);
    CHECK(documents[0].is_source_license);
    CHECK_FALSE(documents[1].is_page);
    CHECK_FALSE(documents[1].is_source_license);
    CHECK(documents[0].fields == full.fields);
    CHECK(documents[0].metadata == full.metadata);
    REQUIRE(documents[0].scores.size() == 1);
    CHECK(documents[0].scores[0].value == 0.1);
    CHECK(documents[1].text.empty());
    CHECK(bytes == std::filesystem::file_size(scratch / "pass"));
  }

  TEST_CASE("pass documents: a file that is cut or goes on is refused") {
    const ScratchFolder scratch;
    const auto refused = [&](const std::string& bytes) {
      spill(scratch / "pass", test::zstd_bytes(bytes));
      return caught([&] { read_pass(scratch / "pass", [](uint32_t, Document&&) {}); });
    };
    const std::string end("\xFF\xFF\xFF\xFF\0\0\0\0\0\0\0\0", 12);
    CHECK(refused(end).code == 0);
    CHECK(refused(end.substr(0, 9)).says("ends inside a document"));
    CHECK(refused(end + "x").says("goes on behind its end"));
    CHECK(refused(std::string("\xFF\xFF\xFF\xFF\1\0\0\0\0\0\0\0", 12)).says("lacks documents"));
    CHECK(refused("").says("ends inside a document"));
    CHECK(refused(std::string(20, '\1')).code == 3);
  }

  TEST_CASE("document chain: what takes too long goes, and nobody looks at it again") {
    struct Slow : DocumentLook {
      bool look(Document& document, std::span<double> values, bool) override {
        values[0] = 1;
        for (volatile uint64_t i = 0; document.text == "slow";) {
          i = i + 1;
          if (i % 1000 == 0) check_deadline();
        }
        return false;
      }
    };
    Slow slow;
    const CorpusStep step{.name = "slow", .rules = {{.name = "value", .most = 0}}};
    const CorpusStep behind{.name = "behind", .rules = {{.name = "value", .most = 0}}};
    DocumentChain chain({{.step = &step, .look = &slow}, {.step = &behind, .look = &slow}}, {.doc_timeout_s = 0.01});
    Document document{.text = "slow"}, quick{.text = "quick"};
    const std::optional<Removed> removed = chain.look(document, /*all=*/true);
    REQUIRE(removed);
    CHECK(removed->removal.rule == kTimeout);
    CHECK_FALSE(removed->removal.value);
    CHECK(*removed->removal.threshold == 0.01);
    CHECK(std::isnan(chain.values()[0]));
    CHECK(chain.counts().at("behind").measured == 0);
    CHECK(chain.look(quick, /*all=*/true)->removal.rule == "value");
    CHECK(chain.counts().at("slow").rules.at(kTimeout).alone.documents == 1);
    CHECK(chain.counts().at("behind").rules.at("value").would.documents == 1);
  }
}

}  // namespace coppice
