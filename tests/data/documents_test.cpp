// Every way into the corpus, by hand-made files, and every refusal of a damaged one.
#include "src/data/documents.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>

#include "src/base/random.h"
#include "tests/data/data_files.h"

namespace coppice {

using test::Folder;
using test::gzip_bytes;
using test::refusal_of;
using test::zstd_bytes;

namespace {

std::vector<Document> read_documents(const std::filesystem::path& path) {
  std::vector<Document> documents;
  const uint64_t count = for_each_document(path, [&](Document&& document) { documents.push_back(std::move(document)); });
  CHECK(count == documents.size());
  return documents;
}

test::Refusal refusal_of_file(const Folder& folder, const std::string& name, const std::string& bytes) {
  const auto path = folder.write(name, bytes);
  return refusal_of([&] { read_documents(path); });
}

const std::string kTwoLines =
    "{\"id\": \"a\", \"text\": \"Na\\u00efve \\\"x\\\"\\n\", \"source\": \"web\", \"metadata\": {\"license\": \"CC0\", \"n\": [1, {\"k\": null}]}}\n"
    "\n"
    "{\"other\": true, \"text\": \"second\"}";

void check_two(const std::vector<Document>& documents, const std::string& name) {
  REQUIRE(documents.size() == 2);
  CHECK(documents[0].id == "a");
  CHECK(documents[0].source == "web");
  CHECK(documents[0].license == "CC0");
  CHECK(documents[0].text == "Na\xC3\xAFve \"x\"\n");
  CHECK(documents[1].id == name + "#2");
  CHECK(documents[1].source == name);
  CHECK(documents[1].license.empty());
  CHECK(documents[1].text == "second");
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("documents: JSONL, plain and compressed, gives the same records") {
    const Folder folder;
    check_two(read_documents(folder.write("x.jsonl", kTwoLines)), "x.jsonl");
    check_two(read_documents(folder.write("x.jsonl.gz", gzip_bytes(kTwoLines))), "x.jsonl.gz");
    check_two(read_documents(folder.write("x.jsonl.zst", zstd_bytes(kTwoLines))), "x.jsonl.zst");
  }

  TEST_CASE("documents: concatenated members and frames, CRLF, a byte order mark") {
    const Folder folder;
    const std::string first = "\xEF\xBB\xBF{\"text\":\"one\"}\r\n", second = "{\"text\":\"two\"}\r\n";
    for (const auto& [name, bytes] : {std::pair<std::string, std::string>{"x.jsonl.gz", gzip_bytes(first) + gzip_bytes(second)},
                                      {"x.jsonl.zst", zstd_bytes(first) + zstd_bytes(second)},
                                      {"x.jsonl", first + second}}) {
      const auto documents = read_documents(folder.write(name, bytes));
      REQUIRE(documents.size() == 2);
      CHECK(documents[0].text == "one");
      CHECK(documents[1].text == "two");
    }
  }

  TEST_CASE("documents: a text file is one document, blank lines and all") {
    const Folder folder;
    const auto documents = read_documents(folder.write("a.txt", "first\n\nsecond\n"));
    REQUIRE(documents.size() == 1);
    CHECK(documents[0].id == "a.txt#1");
    CHECK(documents[0].text == "first\n\nsecond\n");
  }

  TEST_CASE("documents: a folder is read in sorted order, recursively; other files are left out") {
    const Folder folder;
    folder.write("b.txt", "B");
    folder.write("a/z.jsonl", "{\"text\":\"Z\"}\n{\"text\":\"\"}\n{\"text\":\"Y\",\"id\":7}\n");
    folder.write("a/k.txt", "K");
    folder.write("a/notes.md", "left out");
    folder.write("empty.txt", "");
    const auto documents = read_documents(folder.path);
    REQUIRE(documents.size() == 4);
    CHECK(documents[0].id == "a/k.txt#1");
    CHECK(documents[1].id == "a/z.jsonl#1");
    CHECK(documents[2].id == "7");
    CHECK(documents[2].text == "Y");
    CHECK(documents[3].id == "b.txt#1");
  }

  TEST_CASE("documents: a line longer than the read block, and many lines in a block") {
    const Folder folder;
    const std::string longer(3'000'000, 'y');
    std::string lines;
    for (int i = 0; i < 20'000; ++i) lines += "{\"text\":\"line " + std::to_string(i) + "\"}\n";
    const auto documents = read_documents(folder.write("x.jsonl.zst", zstd_bytes("{\"text\":\"" + longer.substr(0, 700'000) + "\"}\n" + lines)));
    REQUIRE(documents.size() == 20'001);
    CHECK(documents[0].text.size() == 700'000);
    CHECK(documents[20'000].text == "line 19999");
    CHECK(read_documents(folder.write("y.jsonl", "{\"text\":\"" + longer + "\"}"))[0].text == longer);
  }

  TEST_CASE("DocumentWriter: round trip, equal bytes for equal documents, nothing without commit") {
    const Folder folder;
    const std::vector<Document> documents = {{"id \"1\"", "somewhere", "tab\t newline\n nul\x01 \xED\x95\x9C", "CC BY-SA 4.0"}, {"2", "s", "x", ""}};
    for (const char* name : {"one.jsonl.zst", "two.jsonl.zst"}) {
      DocumentWriter writer(folder.path / name);
      for (const Document& document : documents) writer.write(document);
      CHECK(writer.text_bytes() == documents[0].text.size() + 1);
      writer.commit();
    }
    CHECK(test::read_bytes(folder.path / "one.jsonl.zst") == test::read_bytes(folder.path / "two.jsonl.zst"));
    const auto back = read_documents(folder.path / "one.jsonl.zst");
    REQUIRE(back.size() == 2);
    CHECK(back[0].id == documents[0].id);
    CHECK(back[0].source == documents[0].source);
    CHECK(back[0].text == documents[0].text);
    CHECK(back[0].license == documents[0].license);
    {
      DocumentWriter writer(folder.path / "three.jsonl.zst");
      writer.write(documents[0]);
    }
    CHECK(std::distance(std::filesystem::directory_iterator(folder.path), {}) == 2);
  }

  TEST_CASE("held-out split: a pure function of the id, nested in the share") {
    CHECK(document_hash("") == 0x2D06800538D394C2u);  // XXH3-64 of nothing, from the xxHash specification
    int held = 0;
    for (int i = 0; i < 100'000; ++i) {
      const std::string id = "doc#" + std::to_string(i);
      held += is_heldout(id, 0.05);
      if (is_heldout(id, 0.05)) CHECK(is_heldout(id, 0.2));
      CHECK_FALSE(is_heldout(id, 0.0));
    }
    CHECK(std::abs(held - 5000) < 4 * std::sqrt(5000 * 0.95));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("documents: damaged input is refused with exit code 3, naming file and record") {
    const Folder folder;
    const std::string good = "{\"text\":\"fine\"}\n";
    const auto refuse = [&](const std::string& name, const std::string& bytes, const std::string& part) {
      const test::Refusal refusal = refusal_of_file(folder, name, bytes);
      INFO(name << ": " << part << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(name));
      CHECK(refusal.says(part));
    };
    refuse("utf8.jsonl", good + "{\"text\":\"\xFF\xFE\"}\n", "record 2");
    refuse("surrogate.jsonl", good + "{\"text\":\"\\ud800\"}\n", "record 2");
    refuse("utf8.txt", "caf\xE9", "UTF-8");
    refuse("broken.jsonl", good + good + "{\"text\": \"x\"\n", "record 3");
    refuse("two.jsonl", "{\"text\":\"x\"} {\"text\":\"y\"}\n", "record 1");
    refuse("array.jsonl", "[1]\n", "expected one JSON object");
    refuse("word.jsonl", good + "hello\n", "record 2");
    refuse("missing.jsonl", "{\"body\":\"x\"}\n", "no field \"text\"");
    refuse("number.jsonl", "{\"text\":5}\n", "\"text\" is no string");
    refuse("twice.jsonl", "{\"text\":\"x\",\"text\":\"y\"}\n", "occurs twice");
    refuse("unread.jsonl", "{\"text\":\"x\",\"other\":[1,tru]}\n", "record 1");
    refuse("deep.jsonl", "{\"text\":\"x\",\"deep\":" + std::string(100, '[') + std::string(100, ']') + "}\n", "record 1");
    refuse("empty.jsonl", "", "no document");
    refuse("blank.jsonl", "\n \n", "no document");
    refuse("empty.jsonl.zst", zstd_bytes(""), "no document");
    refuse("table.csv", "a,b", ".jsonl");
    const std::string packed = zstd_bytes(good + good), gzipped = gzip_bytes(good + good);
    refuse("cut.jsonl.zst", packed.substr(0, packed.size() - 3), "truncated");
    refuse("cut.jsonl.gz", gzipped.substr(0, gzipped.size() - 3), "truncated");
    refuse("noise.jsonl.zst", "this is no zstd", "zstd");
    refuse("noise.jsonl.gz", "this is no gzip", "gzip");
    std::string flipped = gzipped;
    flipped[flipped.size() - 6] ^= 1;  // in the CRC
    refuse("flip.jsonl.gz", flipped, "gzip");
    refuse("tail.jsonl.gz", gzipped + "tail", "gzip");
    CHECK(refusal_of([&] { read_documents(folder.path / "nowhere"); }).code == 3);
    CHECK(refusal_of([&] { read_documents(folder.path / "empty folder"); }).code == 3);
  }

  TEST_CASE("documents: our own files carry a content checksum, so every flipped byte is seen") {
    const Folder folder;
    const auto path = folder.path / "x.jsonl.zst";
    {
      DocumentWriter writer(path);
      for (int i = 0; i < 20; ++i) writer.write({std::to_string(i), "s", "some text " + std::to_string(i * i), "CC0"});
      writer.commit();
    }
    const std::string bytes = test::read_bytes(path);
    const auto whole = read_documents(path);
    for (size_t i = 0; i < bytes.size(); ++i) {
      std::string damaged = bytes;
      damaged[i] ^= 0x10;
      const auto other = folder.write("flipped.jsonl.zst", damaged);
      std::vector<Document> read;
      const test::Refusal refusal = refusal_of([&] { read = read_documents(other); });
      // A flip may be harmless (an unused bit of the frame's header); the text then is the same.
      const bool same = refusal.code == 0 && read.size() == whole.size() && read[7].text == whole[7].text && read[19].text == whole[19].text;
      INFO(i << ": " << refusal.text);
      CHECK((refusal.code == 3 || same));
    }
  }

  TEST_CASE("documents: mutated JSONL is read or refused, never more") {
    const Folder folder;
    std::string good;
    for (int i = 0; i < 3; ++i) good += kTwoLines + "\n";
    size_t num_refused = 0;
    for (uint64_t i = 0; i < 2000; ++i) {
      std::string damaged = good;
      for (uint64_t k = 0; k <= i % 4; ++k)
        damaged[random_bits(5, Purpose::test, i, 2 * k) % damaged.size()] = static_cast<char>(random_bits(5, Purpose::test, i, 2 * k + 1));
      if (i % 7 == 0) damaged.resize(random_bits(5, Purpose::test, i, 100) % damaged.size());
      const test::Refusal refusal = refusal_of_file(folder, "x.jsonl", damaged);
      CHECK((refusal.code == 0 || refusal.code == 3));
      num_refused += refusal.code == 3;
    }
    CHECK(num_refused > 500);
    CHECK(num_refused < 2000);
  }

  TEST_CASE("documents: what is no file hangs nothing and ends nothing but with exit code 3") {
    namespace fs = std::filesystem;
    const Folder folder;
    folder.write("a.txt", "text");
    const auto read_in_child = [](const fs::path& path) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(20);  // a hang ends
        try {
          ::_exit(refusal_of([&] { for_each_document(path, [](Document&&) {}); }).code);
        } catch (...) {
          ::_exit(99);
        }
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    };
    REQUIRE(::mkfifo((folder.path / "pipe.jsonl").c_str(), 0600) == 0);
    CHECK(read_in_child(folder.path / "pipe.jsonl") == 3);
    CHECK(read_in_child(folder.path) == 0);  // left out, as other things that are no documents
    fs::create_symlink("loop.txt", folder.path / "loop.txt");
    CHECK(read_in_child(folder.path) == 3);
    fs::remove(folder.path / "loop.txt");
    fs::create_symlink("nowhere", folder.path / "picture.png");  // of no interest
    CHECK(read_in_child(folder.path) == 0);
  }

  TEST_CASE("documents: bombs stop at their limits") {
    const Folder folder;
    const std::string zeros(64 << 20, ' ');
    test::Refusal refusal = refusal_of_file(folder, "bomb.jsonl.zst", zstd_bytes(zeros));
    CHECK(refusal.code == 3);
    CHECK(refusal.says("bomb"));
    CHECK(refusal.says("1000 times"));
    // deflate stays below 1032 : 1, so only a long run passes the limit
    refusal = refusal_of_file(folder, "bomb.jsonl.gz", gzip_bytes(zeros));
    CHECK(refusal.code == 3);
    CHECK(refusal.says("1000 times"));
    // a window of 256 MiB asked for by eleven bytes: magic, descriptor 0, window log 28, one raw block
    const std::string window("\x28\xB5\x2F\xFD\x00\x90\x09\x00\x00x", 10);
    refusal = refusal_of_file(folder, "window.jsonl.zst", window);
    CHECK(refusal.code == 3);
    CHECK(refusal.says("zstd"));
    refusal = refusal_of_file(folder, "line.jsonl", "{\"text\":\"" + zeros + zeros + "\"}\n");
    CHECK(refusal.code == 3);
    CHECK(refusal.says("line 1 is longer than 67108864 bytes"));
    refusal = refusal_of_file(folder, "large.txt", zeros + "x");
    CHECK(refusal.code == 3);
  }
}

}  // namespace coppice
