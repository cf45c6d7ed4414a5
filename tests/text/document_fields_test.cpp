// What a document's line holds besides what is known of it: kept as it stands, written again, and not looked at unless
// it is asked for.
#include <doctest/doctest.h>

#include "src/text/document_writer.h"
#include "src/text/documents.h"
#include "tests/scratch_folder.h"

namespace coppice {
namespace {

std::vector<Document> read(const std::filesystem::path& path, const CorpusOptions& options) {
  std::vector<Document> documents;
  for_each_document(
      path, [&](Document&& document) { documents.push_back(std::move(document)); }, options);
  return documents;
}

std::vector<Document> read_lines(const ScratchFolder& scratch, const std::string& lines, CorpusOptions options = {}) {
  options.keep_fields = true;
  spill(scratch / "in.jsonl", lines);
  return read(scratch / "in.jsonl", options);
}

/// The lines after a reader and a writer.
std::string again(const ScratchFolder& scratch, const std::string& lines, const CorpusOptions& options = {}) {
  DocumentWriter writer(scratch / "out.jsonl");
  for (const Document& document : read_lines(scratch, lines, options)) writer.write(document);
  writer.commit();
  return slurp(scratch / "out.jsonl");
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("document fields: a list of licences is written once") {
    const ScratchFolder scratch;
    Document document{.id = "1", .text = "a", .license = "CC0-1.0", .metadata = R"("license":["MIT","ISC"],"n":1)"};
    const auto line = [&] {
      DocumentWriter writer(scratch / "one.jsonl");
      writer.write(document);
      writer.commit();
      const std::string written = slurp(scratch / "one.jsonl");
      return written.substr(written.find("\"metadata\""));
    };
    document.is_source_license = true;
    CHECK(line() == "\"metadata\":{\"license\":[\"MIT\",\"ISC\"],\"n\":1}}\n");
    document.metadata = R"("license":null)";
    CHECK(line() == "\"metadata\":{\"license\":\"CC0-1.0\"}}\n");
    document.metadata = R"("license":["MIT","ISC"],"n":1)";
    document.license = "MIT AND ISC";
    document.is_source_license = false;
    CHECK(line() == "\"metadata\":{\"license\":\"MIT AND ISC\",\"n\":1}}\n");
  }

  TEST_CASE("fields: nested values, numbers beyond 64 bits, escapes and other scripts come out as they went in") {
    const ScratchFolder scratch;
    const std::string fields =
        R"("url":"https://a/b?c=\u00e9\n","größe":123456789012345678901234567890,"x":{"y":[1,{"z":null}],"ключ":"値😀"},)"
        R"("small":1.0000000000000000000001e-400,"nan":NaN,"empty":{},"none":[],"last":true)";
    const std::string metadata = R"("license":"MIT","date":"2025-01-02","n":18446744073709551616,"tags":["a","b"])";
    const std::string line =
        R"({"id":"1","source":"s","text":"Grüße",)" + fields + R"(,"metadata":{)" + metadata + "}}\n";
    CHECK(again(scratch, line) == line);
    const Document document = read_lines(scratch, line).at(0);
    CHECK(document.fields == fields);
    CHECK(document.metadata == metadata.substr(std::string_view(R"("license":"MIT",)").size()));
    CHECK(document.license == "MIT");
  }

  TEST_CASE("fields: they come behind those that are known, in their own order, whatever stands between them") {
    const ScratchFolder scratch;
    const std::string lines =
        "{ \"z\" : 1 ,\t\"text\": \"a\",\"metadata\" : { \"q\" : [ 1 , 2 ] } , \"id\":7 , \"b\" : \"x\" }\n"
        "{\"text\":\"b\",\"\\u0062\":2}\n";
    const std::string expected =
        "{\"id\":\"7\",\"source\":\"in.jsonl\",\"text\":\"a\",\"z\" : 1,\"b\" : \"x\",\"metadata\":{\"q\" : [ 1 , 2 "
        "]}}\n"
        "{\"id\":\"in.jsonl#2\",\"source\":\"in.jsonl\",\"text\":\"b\",\"\\u0062\":2,\"metadata\":{\"license\":\"\"}}"
        "\n";
    CHECK(again(scratch, lines) == expected);
    CHECK(again(scratch, expected) == expected);
  }

  TEST_CASE("fields: of an array over several lines, a document stays one line") {
    const ScratchFolder scratch;
    spill(scratch / "in.json", "[\n {\"text\": \"a\",\n  \"x\": {\n    \"y\": \"1\\n2\"\r\n  }\n }\n]\n");
    const Document document = read(scratch / "in.json", {.keep_fields = true}).at(0);
    CHECK(document.fields == "\"x\": {     \"y\": \"1\\n2\"    }");
  }

  TEST_CASE("fields: what stands where something known is written moves into metadata") {
    const ScratchFolder scratch;
    const std::string line = R"({"content":"a","text":"teaser","id":"1","source":5,"metadata":["m"],"x":1})"
                             "\n";
    const std::string expected =
        R"({"id":"1","source":"in.jsonl","text":"a","x":1,"metadata":{"text":"teaser","source":5,"metadata":["m"]}})"
        "\n";
    CHECK(again(scratch, line, {.text_key = "content"}) == expected);
    const std::string licenses = R"({"id":"1","source":"s","text":"a","metadata":{"license":["MIT","0BSD"]}})"
                                 "\n";
    CHECK(again(scratch, licenses) == licenses);
  }

  TEST_CASE("fields: scores are numbers by name, read and written; anything else of that name is a field") {
    const ScratchFolder scratch;
    const std::string line =
        R"({"id":"1","source":"s","text":"a","metadata":{"license":"","scores":{"b":0.1,"a":-3}}})";
    std::vector<Document> documents = read_lines(scratch, line + "\n");
    REQUIRE(documents.at(0).scores.size() == 2);
    CHECK(documents[0].scores[0].name == "b");
    CHECK(documents[0].scores[0].value == 0.1);
    CHECK(documents[0].scores[1].value == -3);
    CHECK(documents[0].metadata.empty());
    CHECK(again(scratch, line + "\n") == line + "\n");
    const std::string odd =
        R"({"id":"1","source":"s","text":"a","metadata":{"scores":{"a":1,"b":"high","c":{"d":[1]}},"x":1}})"
        "\n";
    CHECK(read_lines(scratch, odd).at(0).scores.empty());
    CHECK(again(scratch, odd) == odd);
  }

  TEST_CASE("fields: nobody who does not ask pays for them") {
    const ScratchFolder scratch;
    spill(scratch / "in.jsonl", R"({"text":"a","x":[1],"metadata":{"license":"MIT","y":2,"scores":{"a":1}}})"
                                "\n");
    const Document document = read(scratch / "in.jsonl", {}).at(0);
    CHECK(document.license == "MIT");
    CHECK(document.fields.empty());
    CHECK(document.metadata.empty());
    CHECK(document.scores.empty());
  }

  TEST_CASE("fields: keeping them refuses what reading refuses, and nothing else") {
    const ScratchFolder scratch;
    for (const char* bad : {R"({"text":"a","x":[1})", R"({"text":"a","x":nul})", R"({"text":"a","x":1}})",
                            R"({"text":"a","source":1,"source":"s"})", R"({"text":"a","metadata":{"x":[}})"}) {
      CAPTURE(bad);
      const std::string lines = std::string(bad) + "\n" + R"({"text":"good"})" + "\n";
      CHECK(read_lines(scratch, lines).size() == 1);
      CHECK(read(scratch / "in.jsonl", {}).size() == 1);
    }
    const std::string strange = R"({"text":"a","x":"\ud800","\ud800":-Infinity,"y":1e999})"
                                "\n";
    CHECK(read_lines(scratch, strange).at(0).fields == R"("x":"\ud800","\ud800":-Infinity,"y":1e999)");
  }
}

}  // namespace coppice
