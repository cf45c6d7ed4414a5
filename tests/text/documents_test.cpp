// Every way into the corpus, by hand-made files, and every refusal of a damaged one.
#include "src/text/documents.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/random.h"
#include "src/text/document_writer.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

namespace coppice {

using test::gzip_bytes;
using test::zstd_bytes;

namespace {

std::vector<Document> read_documents(const std::filesystem::path& path, const CorpusOptions& options = {.max_bad = 0},
                                     CorpusReport* report = nullptr) {
  std::vector<Document> documents;
  const CorpusReport got = for_each_document(
      path, [&](Document&& document) { documents.push_back(std::move(document)); }, options);
  CHECK(got.documents == documents.size());
  if (report != nullptr) *report = got;
  return documents;
}

Caught refusal_of_file(const ScratchFolder& folder, const std::string& name, const std::string& bytes,
                       const CorpusOptions& options = {.max_bad = 0}) {
  const auto path = folder.write(name, bytes);
  return caught([&] { read_documents(path, options); });
}

const std::string kTwoLines =
    "{\"id\": \"a\", \"text\": \"Na\\u00efve \\\"x\\\"\\n\", \"source\": \"web\", \"metadata\": {\"license\": \"CC0\", "
    "\"n\": [1, {\"k\": null}]}}\n"
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
    const ScratchFolder folder;
    check_two(read_documents(folder.write("x.jsonl", kTwoLines)), "x.jsonl");
    check_two(read_documents(folder.write("x.jsonl.gz", gzip_bytes(kTwoLines))), "x.jsonl.gz");
    check_two(read_documents(folder.write("x.jsonl.zst", zstd_bytes(kTwoLines))), "x.jsonl.zst");
  }

  TEST_CASE("documents: concatenated members and frames, CRLF, a byte order mark") {
    const ScratchFolder folder;
    const std::string first = "\xEF\xBB\xBF{\"text\":\"one\"}\r\n", second = "{\"text\":\"two\"}\r\n";
    for (const auto& [name, bytes] :
         {std::pair<std::string, std::string>{"x.jsonl.gz", gzip_bytes(first) + gzip_bytes(second)},
          {"x.jsonl.zst", zstd_bytes(first) + zstd_bytes(second)},
          {"x.jsonl", first + second}}) {
      const auto documents = read_documents(folder.write(name, bytes));
      REQUIRE(documents.size() == 2);
      CHECK(documents[0].text == "one");
      CHECK(documents[1].text == "two");
    }
  }

  TEST_CASE("documents: a text file is one document, blank lines and all") {
    const ScratchFolder folder;
    const auto documents = read_documents(folder.write("a.txt", "first\n\nsecond\n"));
    REQUIRE(documents.size() == 1);
    CHECK(documents[0].id == "a.txt#1");
    CHECK(documents[0].text == "first\n\nsecond\n");
  }

  TEST_CASE("documents: a folder is read in sorted order, recursively; other files are left out") {
    const ScratchFolder folder;
    folder.write("b.txt", "B");
    folder.write("a/z.jsonl", "{\"text\":\"Z\"}\n{\"text\":\"\"}\n{\"text\":\"Y\",\"id\":7}\n");
    folder.write("a/k.txt", "K");
    folder.write("a/notes.md", "left out");
    folder.write("empty.txt", "");
    folder.write("info.json", "{\n  \"text\": \"one object over several lines\"\n}\n");
    CorpusReport report;
    const auto documents = read_documents(folder.path, {}, &report);
    CHECK(report.other_files == std::vector<std::string>{"a/notes.md", "info.json"});
    REQUIRE(documents.size() == 4);
    CHECK(documents[0].id == "a/k.txt#1");
    CHECK(documents[1].id == "a/z.jsonl#1");
    CHECK(documents[2].id == "7");
    CHECK(documents[2].text == "Y");
    CHECK(documents[3].id == "b.txt#1");
  }

  TEST_CASE("documents: a line longer than the read block, and many lines in a block") {
    const ScratchFolder folder;
    const std::string longer(3'000'000, 'y');
    std::string lines;
    for (int i = 0; i < 20'000; ++i) lines += "{\"text\":\"line " + std::to_string(i) + "\"}\n";
    const auto documents = read_documents(
        folder.write("x.jsonl.zst", zstd_bytes("{\"text\":\"" + longer.substr(0, 700'000) + "\"}\n" + lines)));
    REQUIRE(documents.size() == 20'001);
    CHECK(documents[0].text.size() == 700'000);
    CHECK(documents[20'000].text == "line 19999");
    CHECK(read_documents(folder.write("y.jsonl", "{\"text\":\"" + longer + "\"}"))[0].text == longer);
  }

  TEST_CASE("documents: an ending in capitals is the same ending; .ndjson and .json are read") {
    const ScratchFolder folder;
    for (const char* name : {"X.JSONL", "x.ndjson", "x.NdJson", "x.json"})
      check_two(read_documents(folder.write(name, kTwoLines)), name);
    check_two(read_documents(folder.write("X.JSONL.ZST", zstd_bytes(kTwoLines))), "X.JSONL.ZST");
    check_two(read_documents(folder.write("x.Json.gz", gzip_bytes(kTwoLines))), "x.Json.gz");
    CHECK(read_documents(folder.write("A.TXT", "text"))[0].id == "A.TXT#1");
    CHECK(corpus_files(folder.path).size() == 7);
  }

  TEST_CASE("documents: a .json of one array, packed and spread over lines, gives the records of the same lines") {
    const ScratchFolder folder;
    const std::string first = kTwoLines.substr(0, kTwoLines.find('\n')),
                      second = kTwoLines.substr(kTwoLines.rfind('\n') + 1);
    for (const std::string& array :
         {"[" + first + "," + second + "]", "\xEF\xBB\xBF \r\n[\n  " + first + ",\r\n  " + second + "\n]\n",
          "[" + first + "\n,\n" + nlohmann::json::parse(second).dump(2) + "]  "}) {
      check_two(read_documents(folder.write("x.json", array)), "x.json");
      check_two(read_documents(folder.write("x.json.zst", zstd_bytes(array))), "x.json.zst");
      check_two(read_documents(folder.write("x.json.gz", gzip_bytes(array))), "x.json.gz");
    }
    const auto documents = read_documents(folder.write(
        "y.json", "[\n{\"text\": \"a ] } \\\" \\\\\"},\n\n{\"text\": \"[{\", \"more\": [[1, \"}\"], {}]}]"));
    REQUIRE(documents.size() == 2);
    CHECK(documents[0].text == "a ] } \" \\");
    CHECK(documents[1].text == "[{");
    CHECK(documents[0].line == 2);
    CHECK(documents[1].line == 4);
    CHECK(*documents[1].file == "y.json");
  }

  TEST_CASE("documents: an array longer than the read block, its documents cut anywhere") {
    const ScratchFolder folder;
    std::string array = "[";
    for (size_t i = 0; i < 5000; ++i)
      array += (i > 0 ? ", " : "") + nlohmann::json({{"text", std::string(i % 400, '\\') + std::to_string(i)}}).dump();
    array += ", " + nlohmann::json({{"text", std::string(900'000, '"')}}).dump() + "]";
    const auto documents = read_documents(folder.write("x.json", array));
    REQUIRE(documents.size() == 5001);
    for (size_t i = 0; i < 5000; ++i) REQUIRE(documents[i].text == std::string(i % 400, '\\') + std::to_string(i));
    CHECK(documents[5000].text == std::string(900'000, '"'));
  }

  TEST_CASE("documents: text_key names the field of the text, in lines and arrays") {
    const ScratchFolder folder;
    const CorpusOptions options{.text_key = "content", .max_bad = 0};
    for (const auto& [name, bytes] : {std::pair{"x.jsonl", R"({"text": 5, "content": "right", "id": "a"})"},
                                      {"x.json", R"([{"content": "right", "id": "a"}])"}}) {
      const auto documents = read_documents(folder.write(name, bytes), options);
      REQUIRE(documents.size() == 1);
      CHECK(documents[0].text == "right");
      CHECK(documents[0].id == "a");
    }
    const Caught refusal = refusal_of_file(folder, "y.jsonl",
                                           R"({"content": "x", "url": "u"})"
                                           "\n");
    CHECK(refusal.code == 3);
    CHECK(refusal.says(R"(no field "text" among "content", "url" (text_key)"));
  }

  TEST_CASE("documents: ids are text, numbers as they are written; null stands for none") {
    const ScratchFolder folder;
    const auto documents =
        read_documents(folder.write("x.jsonl",
                                    "{\"text\":\"a\",\"id\":7}\n{\"text\":\"b\",\"id\":\"7\"}\n{\"text\":\"c\",\"id\":"
                                    "18446744073709551617}\n{\"text\":\"d\",\"id\": -1.50 }\n"
                                    "{\"text\":\"e\",\"id\":null,\"source\":null}\n{\"text\":\"f\",\"id\":\"\","
                                    "\"source\":7,\"metadata\":{\"license\":null}}\n"));
    const char* const expected[] = {"7", "7", "18446744073709551617", "-1.50", "x.jsonl#5", "x.jsonl#6"};
    REQUIRE(documents.size() == 6);
    for (size_t i = 0; i < 6; ++i) CHECK(documents[i].id == expected[i]);
    CHECK(documents[4].source == "x.jsonl");
    CHECK(documents[5].source == "x.jsonl");
    CHECK(documents[3].line == 4);
  }

  TEST_CASE("documents: what nobody reads does no harm") {
    const ScratchFolder folder;
    for (const char* field : {"NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e-999", "\"\\ud800\"", "\"\\q\"",
                              "[1, {\"score\": NaN}]", "{\"a\": -Infinity, \"a\": 2}", "null", "[]"}) {
      CAPTURE(field);
      for (const std::string& line :
           {"{\"text\":\"x\",\"other\":" + std::string(field) + "}",
            "{\"other\": " + std::string(field) + " , \"text\":\"x\"}",
            "{\"metadata\":{\"score\":" + std::string(field) + ",\"license\":\"CC0\"},\"text\":\"x\"}"}) {
        CHECK(read_documents(folder.write("x.jsonl", line))[0].text == "x");
        CHECK(read_documents(folder.write("x.json", "[" + line + "]"))[0].text == "x");
      }
    }
    CHECK(read_documents(folder.write("y.jsonl", "{\"\\ud800\":1,\"te\\u0078t\":\"x\"}"))[0].text == "x");
  }

  TEST_CASE("documents: bad records are left out with their place and reason, the others are read") {
    const ScratchFolder folder;
    const struct {
      std::string record;
      const char* reason;
    } cases[] = {{"{\"body\":\"x\"}", "no field \"text\""},
                 {"{\"text\":null}", "\"text\" is null"},
                 {"{\"text\":[\"x\"]}", "\"text\" is no string"},
                 {"{\"text\":NaN}", "bad JSON"},
                 {"{\"text\":\"\\ud83d\"}", "surrogate"},
                 {"{\"text\":\"caf\xE9\"}", "byte 13 is not valid UTF-8 (the line seems to be Latin-1"},
                 {"{\"text\":\"\xC3\xA9 \xC3\xA9 \xFF\"}", "is not valid UTF-8"},
                 {"{\"text\":\"x\",\"text\":\"y\"}", "occurs twice"},
                 {"{\"text\":\"x\",\"id\":{}}", "\"id\" is neither"},
                 {"{\"text\":\"x\",\"other\":tru}", "'tru' is no value"},
                 {"{\"text\":\"x\",\"deep\":" + std::string(65, '[') + std::string(65, ']') + "}", "bad JSON"},
                 {"{\"text\":\"a\tb\"}", "bad JSON"},
                 {"{\"text\":\"a\",\"x\":[1,\"k\":2],\"y\":3}", "bad JSON"},
                 {"{\"text\":\"a\",\"x\":{\"k\":\"l\":2}}", "bad JSON"},
                 {"{\"text\":\"a\",\"metadata\":{\"x\":{\"y\":[1,\"k\":null]}}}", "bad JSON"},
                 {"[\"text\"]", "expected one JSON object"}};
    const std::string good = "{\"text\":\"before\"}", after = "{\"text\":\"after\"}";
    for (const auto& [record, reason] : cases) {
      CAPTURE(record);
      for (const auto& [name, bytes] : {std::pair{"x.jsonl", good + "\n" + record + "\r\n" + after + "\n"},
                                        {"x.json", "[" + good + ",\n" + record + "\n," + after + "]"}}) {
        CorpusReport report;
        const auto documents = read_documents(folder.write(name, bytes), {}, &report);
        REQUIRE(documents.size() == 2);
        CHECK(documents[0].text == "before");
        CHECK(documents[1].text == "after");
        CHECK(documents[1].id == std::string(name) + "#3");
        REQUIRE(report.bad.size() == 1);
        CHECK(report.bad[0].file == name);
        CHECK(report.bad[0].bad == 1);
        CHECK(report.bad[0].records == 3);
        REQUIRE(report.bad[0].first.size() == 1);
        INFO(report.bad[0].first[0]);
        CHECK(report.bad[0].first[0].starts_with(std::string(name) + ":2: record 2: "));
        CHECK(report.bad[0].first[0].find(reason) != std::string::npos);
      }
    }
    CorpusReport report;
    const auto cut = read_documents(folder.write("cut.jsonl", good + "\n{\"text\":\"aft"), {},
                                    &report);  // the last line of a plain file
    CHECK(cut.size() == 1);
    CHECK(report.num_bad() == 1);
    read_documents(folder.write("empty.jsonl", good + "\n{\"text\":\"\"}\n"), {},
                   &report);  // nothing to read is not bad, and is told apart
    CHECK(report.empty == 1);
    CHECK(report.num_bad() == 0);
  }

  TEST_CASE("documents: max_bad of a file is the larger of 100 and 0.1%, or what is asked for") {
    const ScratchFolder folder;
    const std::string good = "{\"text\":\"x\"}\n", bad = "{}\n";
    const auto lines = [&](size_t num_good, size_t num_bad) {
      std::string text;
      for (size_t i = 0; i < num_bad; ++i) text += bad;
      for (size_t i = 0; i < num_good; ++i) text += good;
      return text;
    };
    const struct {
      size_t num_good, num_bad;
      int64_t max_bad;
      bool read;
    } cases[] = {{1, 100, -1, true}, {1000, 101, -1, false}, {199'800, 200, -1, true}, {199'799, 201, -1, false},
                 {5, 1, 0, false},   {5, 3, 3, true},        {5, 4, 3, false},         {5, 5000, 5000, true},
                 {0, 3, -1, false},  {0, 10'000, -1, false}};
    for (const auto& c : cases) {
      CAPTURE(c.num_good);
      CAPTURE(c.num_bad);
      const auto path = folder.write("x.jsonl", lines(c.num_good, c.num_bad));
      CorpusReport report;
      const Caught refusal =
          caught([&] { report = for_each_document(path, [](Document&&) {}, {.max_bad = c.max_bad}); });
      CHECK(refusal.code == (c.read ? 0 : 3));
      if (c.read) {
        CHECK(report.documents == c.num_good);
        CHECK(report.num_bad() == c.num_bad);
        CHECK(report.bad[0].first.size() == std::min<size_t>(c.num_bad, 10));
      } else {
        CHECK(refusal.says("x.jsonl:1: record 1: no field \"text\""));
        if (c.num_good > 0) CHECK(refusal.says("data.max_bad"));
      }
    }
    // of each file, not of the folder
    folder.write("many/a.jsonl", lines(1, 60));
    folder.write("many/b.jsonl", lines(1, 60));
    CorpusReport report;
    CHECK(read_documents(folder.path / "many", {}, &report).size() == 2);
    CHECK(report.num_bad() == 120);
  }

  TEST_CASE("documents: a line or element above 64 MB is left out in bounded memory") {
    const ScratchFolder folder;
    const std::string longer(size_t{65} << 20, 'y'), after = "{\"text\":\"after\"}";
    for (const auto& [name, bytes] : {std::pair{"x.jsonl", "{\"text\":\"" + longer + "\"}\n" + after},
                                      {"x.json", "[{\"text\":\"" + longer + "\"}," + after + "]"}}) {
      CorpusReport report;
      const auto documents = read_documents(folder.write(name, bytes), {}, &report);
      REQUIRE(documents.size() == 1);
      CHECK(documents[0].text == "after");
      CHECK(documents[0].id == std::string(name) + "#2");
      CHECK(report.num_bad() == 1);
    }
  }

  TEST_CASE("text_hash: white space at the ends does not count") {
    CHECK(text_hash(" a b\r\n") == text_hash("a b"));
    CHECK(text_hash("a  b") != text_hash("a b"));
    CHECK(text_hash("") == text_hash(" \n"));
    CHECK(text_hash("") != text_hash("a"));
  }

  TEST_CASE("DocumentWriter: round trip, equal bytes for equal documents, nothing without commit") {
    const ScratchFolder folder;
    const std::vector<Document> documents = {
        {"id \"1\"", "somewhere", "tab\t newline\n nul\x01 \xED\x95\x9C", "CC BY-SA 4.0"}, {"2", "s", "x", ""}};
    for (const char* name : {"one.jsonl.zst", "two.jsonl.zst"}) {
      DocumentWriter writer(folder.path / name);
      for (const Document& document : documents) writer.write(document);
      CHECK(writer.text_bytes() == documents[0].text.size() + 1);
      writer.commit();
    }
    CHECK(slurp(folder.path / "one.jsonl.zst") == slurp(folder.path / "two.jsonl.zst"));
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

  TEST_CASE("tuning split: nested in its share, and no document that any share below one half holds out") {
    int tuned = 0;
    for (int i = 0; i < 100'000; ++i) {
      const std::string id = "doc#" + std::to_string(i);
      tuned += is_tuning(id, 0.05);
      if (is_tuning(id, 0.05)) CHECK(is_tuning(id, 0.2));
      if (is_tuning(id, 0.4999)) CHECK_FALSE(is_heldout(id, 0.4999));
      CHECK_FALSE(is_tuning(id, 0.0));
    }
    CHECK(std::abs(tuned - 5000) < 4 * std::sqrt(5000 * 0.95));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("documents: damaged input is refused with exit code 3, naming file and record") {
    const ScratchFolder folder;
    const std::string good = "{\"text\":\"fine\"}\n";
    const auto refuse = [&](const std::string& name, const std::string& bytes, const std::string& part) {
      const Caught refusal = refusal_of_file(folder, name, bytes);
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
    refuse("deep.jsonl", "{\"text\":\"x\",\"deep\":" + std::string(100, '[') + std::string(100, ']') + "}\n",
           "record 1");
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
    CHECK(caught([&] { read_documents(folder.path / "nowhere"); }).code == 3);
    CHECK(caught([&] { read_documents(folder.path / "empty folder"); }).code == 3);
  }

  TEST_CASE("documents: a text file in another encoding is named with what it seems to be") {
    const ScratchFolder folder;
    const auto wide = [](const std::string& text, bool big, const std::string& mark) {
      std::string bytes = mark;
      for (const char c : text) bytes += big ? std::string{'\0', c} : std::string{c, '\0'};
      return bytes;
    };
    const std::string line = "{\"text\": \"Some text, long enough to be looked at.\"}\n";
    for (const char* name : {"x.txt", "x.jsonl", "x.json"})
      for (const auto& [bytes, encoding] : {std::pair{wide(line, false, "\xFF\xFE"), "UTF-16LE"},
                                            {wide(line, false, ""), "UTF-16LE"},
                                            {wide(line, true, "\xFE\xFF"), "UTF-16BE"},
                                            {wide(line, true, ""), "UTF-16BE"}}) {
        CAPTURE(name);
        const Caught refusal = refusal_of_file(folder, name, bytes, {});
        INFO(refusal.text);
        CHECK(refusal.code == 3);
        CHECK(refusal.says(encoding));
        CHECK(refusal.says("iconv -f " + std::string(encoding) + " -t UTF-8"));
      }
    const auto named = [&](const std::string& bytes, const std::string& part) {
      const Caught refusal = refusal_of_file(folder, "x.txt", bytes, {});
      INFO(refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
    };
    named("Un caf\xE9 \xE0 la cr\xE8me", "iconv -f WINDOWS-1252");
    named("It\x92s \x93quoted\x94 text", "Windows-1252");
    named("\xF0\xD2\xC9\xD7\xC5\xD4, \xCD\xC9\xD2", "KOI8-R");                       // KOI8-R
    named("text, \xC3\xA9\xC3\xA8\xC3\xAA and \xFF", "byte 18 is not valid UTF-8");  // damaged UTF-8 is not Latin-1

    // among others: another encoding stops the folder unless max_bad says otherwise, damage is left out
    folder.write("all/a.txt", "good");
    folder.write("all/b.txt", "d\xC3\xA9j\xC3\xA0 vu \xFF");
    CorpusReport report;
    CHECK(read_documents(folder.path / "all", {}, &report).size() == 1);
    CHECK(report.num_bad() == 1);
    CHECK(report.bad[0].records == 2);
    folder.write("all/c.txt", "caf\xE9");
    folder.write("all/d.txt", "caf\xE9s");
    const Caught refusal = caught([&] { read_documents(folder.path / "all", {}); });
    CHECK(refusal.code == 3);
    CHECK(refusal.says("2 of 4 text files are in another encoding: c.txt: "));
    CHECK(read_documents(folder.path / "all", {.max_bad = 3}, &report).size() == 1);
    CHECK(report.num_bad() == 3);
    CHECK(caught([&] {
            read_documents(folder.path / "all", {.max_bad = 2});
          }).says("3 of 4 text files are no documents"));
  }

  TEST_CASE("documents: an array that is torn is refused with its place, whatever may be left out") {
    const ScratchFolder folder;
    const std::string good = "{\"text\":\"fine\"}";
    const auto refuse = [&](const std::string& bytes, const std::string& part) {
      const Caught refusal = refusal_of_file(folder, "x.json", bytes, {});
      INFO(bytes << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
    };
    refuse("[" + good + ",\n" + good, "x.json:2: the array of documents does not end");
    refuse("[" + good + ",\n{\"text\": \"x", "in the document of line 2");
    refuse("[" + good + ",\n{\"text\": \"x\\", "in the document of line 2");
    refuse("[" + good + ",\n{\"text\": \"x},\n" + good + "]", "in the document of line 2");
    refuse("[" + good + "] " + good, "text after the array");
    refuse("[]", "no document");
    refuse("[", "does not end");
    refuse("{\n  \"data\": [" + good + "]\n}\n", "one JSON object over several lines");
    // which below a folder is some other file
    folder.write("all/about.json", "{\n  \"licence\": \"CC0\"\n}\n");
    folder.write("all/a.jsonl", good);
    CHECK(corpus_files(folder.path / "all") == std::vector<std::string>{"a.jsonl"});
  }

  TEST_CASE("documents: our own files carry a content checksum, so every flipped byte is seen") {
    const ScratchFolder folder;
    const auto path = folder.path / "x.jsonl.zst";
    {
      DocumentWriter writer(path);
      for (int i = 0; i < 20; ++i) writer.write({std::to_string(i), "s", "some text " + std::to_string(i * i), "CC0"});
      writer.commit();
    }
    const std::string bytes = slurp(path);
    const auto whole = read_documents(path);
    for (size_t i = 0; i < bytes.size(); ++i) {
      std::string damaged = bytes;
      damaged[i] ^= 0x10;
      const auto other = folder.write("flipped.jsonl.zst", damaged);
      std::vector<Document> read;
      const Caught refusal = caught([&] { read = read_documents(other); });
      // A flip may be harmless (an unused bit of the frame's header); the text then is the same.
      const bool same = refusal.code == 0 && read.size() == whole.size() && read[7].text == whole[7].text &&
                        read[19].text == whole[19].text;
      INFO(i << ": " << refusal.text);
      CHECK((refusal.code == 3 || same));
    }
  }

  TEST_CASE("documents: mutated JSONL is read or refused, never more") {
    const ScratchFolder folder;
    std::string good;
    for (int i = 0; i < 3; ++i) good += kTwoLines + "\n";
    size_t num_refused = 0;
    for (uint64_t i = 0; i < 2000; ++i) {
      std::string damaged = good;
      for (uint64_t k = 0; k <= i % 4; ++k)
        damaged[random_bits(5, Purpose::test, i, 2 * k) % damaged.size()] =
            static_cast<char>(random_bits(5, Purpose::test, i, 2 * k + 1));
      if (i % 7 == 0) damaged.resize(random_bits(5, Purpose::test, i, 100) % damaged.size());
      const Caught refusal = refusal_of_file(folder, "x.jsonl", damaged);
      CHECK((refusal.code == 0 || refusal.code == 3));
      num_refused += refusal.code == 3;
    }
    CHECK(num_refused > 500);
    CHECK(num_refused < 2000);
  }

  TEST_CASE("documents: what is no file hangs nothing and ends nothing but with exit code 3") {
    namespace fs = std::filesystem;
    const ScratchFolder folder;
    folder.write("a.txt", "text");
    const auto read_in_child = [](const fs::path& path) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::alarm(20);  // a hang ends
        try {
          ::_exit(caught([&] { for_each_document(path, [](Document&&) {}); }).code);
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
    const ScratchFolder folder;
    const std::string zeros(64 << 20, ' ');
    Caught refusal = refusal_of_file(folder, "bomb.jsonl.zst", zstd_bytes(zeros));
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
