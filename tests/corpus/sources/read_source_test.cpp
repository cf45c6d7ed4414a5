// Documents of files of every kind, and what is counted instead.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "src/corpus/sources/convert.h"
#include "src/text/document_metadata.h"
#include "tests/caught.h"
#include "tests/corpus/sources/read.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

using namespace coppice;
using test::Counts;
using test::gzip_bytes;
using test::Read;
using test::read_source;
using test::zstd_bytes;

namespace {

std::string record(const std::string& headers, const std::string& block) {
  return fmt::format("WARC/1.0\r\n{}Content-Length: {}\r\n\r\n{}\r\n\r\n", headers, block.size(), block);
}

std::string response(int number, const std::string& http, const std::string& more = "") {
  return record(
      fmt::format("WARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{}>\r\nWARC-Date: 2026-01-31T00:00:00Z\r\n"
                  "WARC-Target-URI: http://example.com/{}\r\nWARC-IP-Address: 192.0.2.1\r\n"
                  "WARC-Payload-Digest: sha1:ABC\r\n{}",
                  number, number, more),
      http);
}

std::string page(const std::string& body, const std::string& headers = "Content-Type: text/html; charset=utf-8\r\n",
                 const std::string& status = "200 OK") {
  return "HTTP/1.1 " + status + "\r\n" + headers + "\r\n" + body;
}

const std::filesystem::path kFixtures = std::filesystem::path(COPPICE_SOURCE_DIR) / "tests/corpus/fixtures/parquet";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("jsonl: documents with their fields, packed in several members and frames") {
    const ScratchFolder folder;
    const std::string one =
        "{\"text\":\"one\",\"id\":\"i\",\"url\":\"u\",\"source\":\"web\",\"metadata\":{\"license\":\"MIT\"}}\n";
    const std::string two = "{\"text\":\"two\"}\r\n\n{\"text\":\"\"}\n";
    for (const auto& [name, bytes] : {std::pair<std::string, std::string>{"x.jsonl", one + two},
                                      {"x.jsonl.gz", gzip_bytes(one) + gzip_bytes(two)},
                                      {"x.jsonl.zst", zstd_bytes(one) + zstd_bytes(two)}}) {
      const Read read = read_source(folder.write(name, bytes), "");
      REQUIRE(read.documents.size() == 2);
      CHECK(read.documents[0].id == "i");
      CHECK(read.documents[0].source == "web");
      CHECK(read.documents[0].license == "MIT");
      CHECK(read.documents[0].fields == "\"url\":\"u\"");
      CHECK(read.documents[1].id == "s/" + name + "#2");
      CHECK(read.documents[1].source == "s");
      CHECK(read.documents[1].license == "CC0-1.0");
      CHECK(*read.documents[1].file == "s/" + name);
      CHECK(read.documents[1].line == 2);
      CHECK(read.report.documents == 2);
      CHECK(read.report.records == 3);
      CHECK(read.report.passed == Counts{{"empty", 1}});
      CHECK(read.report.bad.empty());
      CHECK(read.bytes_read == bytes.size());
    }
    const Read array =
        read_source(folder.write("x.json", "[\n{\"body\":\"one\"},\n{\"body\":\"two\"}]"), "", {}, "body");
    REQUIRE(array.documents.size() == 2);
    CHECK(array.documents[1].text == "two");
    CHECK(read_source(folder.write("empty.jsonl", ""), "").report.records == 0);
  }

  TEST_CASE("jsonl: damage is counted by reason, with places, and refused above the limit") {
    const ScratchFolder folder;
    std::string good;
    for (int i = 0; i < 300; ++i) good += "{\"text\":\"x\"}\n";
    const Read read = read_source(
        folder.write("x.jsonl", good + "{\"text\":\n{\"body\":1}\n{\"text\":\"\xFF\"}\n{\"text\":null}\n{\"text\":\"" +
                                    std::string(2000, 'l') + "\"}\n{\"text\":\"a\",\"id\":[]}\n"),
        "", {.max_document_bytes = 1000});
    CHECK(read.report.documents == 300);
    CHECK(read.report.records == 306);
    CHECK(read.report.bad ==
          Counts{{"no JSON", 1}, {"no text", 2}, {"invalid UTF-8", 1}, {"too long", 1}, {"bad id", 1}});
    REQUIRE(read.report.first_bad.size() == 6);
    CHECK(read.report.first_bad[1] ==
          "s/x.jsonl:302: record 302: no field \"text\" among \"body\" (text names the field that holds the text)");
    CHECK(read.report.first_bad[4] == "s/x.jsonl:305: record 305: is longer than 1000 bytes");
    std::string bad;
    for (int i = 0; i < 101; ++i) bad += "rubbish\n";
    const auto path = folder.write("y.jsonl", good + bad);
    const Caught refused = caught([&] { read_source(path, ""); });
    CHECK(refused.code == 3);
    CHECK(refused.says("y.jsonl: 101 of 401 records are damaged: s/y.jsonl:301: record 301: "));
    CHECK(refused.says("let max_bad_share = 1 leave them out"));
    CHECK(read_source(path, "", {.max_bad_share = 0.3}).report.bad == Counts{{"no JSON", 101}});
    CHECK(read_source(path, "", {.max_bad_share = 1}).report.documents == 300);
    CHECK(read_source(folder.write("z.jsonl", good + bad.substr(8)), "").report.bad == Counts{{"no JSON", 100}});
    CHECK(caught([&] { read_source(folder.write("all.jsonl", "rubbish\n"), ""); }).code == 3);
    CHECK(caught([&] { read_source(folder.write("wide.jsonl", std::string("{\0\"\0t\0", 6)), ""); }).says("UTF-16LE"));
    CHECK(caught([&] {
            read_source(folder.write("o.json", "{\n\"a\": 1,\n\"b\": 2}"), "");
          }).says("one JSON object over"));
    std::string cut = gzip_bytes(good + good);
    cut.resize(cut.size() - 12);
    const auto cut_path = folder.write("cut.jsonl.gz", cut);
    CHECK(caught([&] { read_source(cut_path, ""); }).says("truncated"));
    CHECK(read_source(cut_path, "", {.max_bad_share = 1}).report.bad.at("cut short") == 1);
  }

  TEST_CASE("warc: pages of status 200 with what is known of them; the rest by reason") {
    const ScratchFolder folder;
    const std::string html = "<html><body>Caf\xC3\xA9</body></html>";
    const std::string bytes =
        record("WARC-Type: warcinfo\r\nWARC-Record-ID: <urn:uuid:w>\r\n", "software: x\r\n") +
        record("WARC-Type: request\r\n", "GET / HTTP/1.1\r\n\r\n") + response(1, page(html)) +
        response(2, page("gone", "Content-Type: text/html\r\n", "404 Not Found")) +
        response(3, page("%PDF", "Content-Type: application/pdf\r\n")) +
        response(4,
                 page("<p>caf\xE9",
                      "Content-Type: application/xhtml+xml\r\nX-Robots-Tag: noai\r\nx-robots-tag: nofollow\r\n"
                      "TDM-Reservation: 1\r\n"),
                 "WARC-Truncated: length\r\n") +
        response(5, page("\x1B\x2F", "Content-Type: text/html\r\nContent-Encoding: br\r\n")) +
        response(6, page(gzip_bytes(html), "Content-Type: text/html\r\nContent-Encoding: gzip\r\n")) +
        response(7, page("3\r\n<p>\r\nzz\r\n", "Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n")) +
        response(8, page("", "Content-Type: text/html\r\n")) + response(9, "no HTTP") +
        response(10, page("<p>part", "Content-Type: text/html\r\n"), "WARC-Segment-Number: 1\r\n") +
        response(11, page(std::string(900, '\xFF'))) + response(12, page("<p>typed", "")) +
        response(13, page("<p>typed", ""), "WARC-Identified-Payload-Type: text/html\r\n") +
        response(14, page("<p>no id")).replace(35, 2, "Xx") + record("WARC-Type: made-up\r\n", "x") +
        response(15, page("<p>" + std::string(9000, 'x'))) +
        response(16, page("<p>bad \xC3 utf", "Content-Type: text/html; charset=utf-8\r\n")) +
        response(17, page("weird", "Content-Type: text/html\r\n", "999 x"));
    const Read read = read_source(folder.write("x.warc.gz", gzip_bytes(bytes)), "", {.max_document_bytes = 5000});
    REQUIRE(read.documents.size() == 6);
    const Document& first = read.documents[0];
    CHECK(first.id == "<urn:uuid:1>");
    CHECK(first.text == html);
    CHECK(first.is_page);
    CHECK(first.source == "s");
    CHECK(first.license == "CC0-1.0");
    CHECK(first.line == 3);
    CHECK(first.metadata ==
          "\"url\":\"http://example.com/1\",\"date\":\"2026-01-31T00:00:00Z\",\"digest\":\"sha1:ABC\"");
    CHECK(read.documents[1].text == "<p>caf\xC3\xA9");
    CHECK(metadata_text(read.documents[1], "x_robots_tag") == "noai; nofollow");
    CHECK(metadata_text(read.documents[1], "tdm_reservation") == "1");
    CHECK(metadata_text(read.documents[1], "truncated") == "length");
    CHECK(read.documents[2].text == html);
    CHECK(read.documents[3].text == "<p>typed");
    CHECK(read.documents[4].id == "s/x.warc.gz#16");
    CHECK(read.documents[5].text == "<p>bad \xEF\xBF\xBD utf");
    CHECK(find_metadata(read.documents[5], "replaced_characters")->dump() == "1");
    CHECK(read.report.passed == Counts{{"type warcinfo", 1},
                                       {"type request", 1},
                                       {"type unknown", 1},
                                       {"status 404", 1},
                                       {"status unknown", 1},
                                       {"not HTML", 2},
                                       {"content-encoding br", 1},
                                       {"empty", 1},
                                       {"not HTTP", 1},
                                       {"in segments", 1},
                                       {"binary", 1}});
    CHECK(read.report.bad == Counts{{"damaged body", 1}, {"too long", 1}});
    CHECK(read.report.records == 20);
  }

  TEST_CASE("warc: damage in a file is counted; a file that is lost is refused") {
    const ScratchFolder folder;
    const std::string one = response(1, page("<p>one")), two = response(2, page("<p>two" + std::string(2000, 'x')));
    const Read cut = read_source(folder.write("x.warc", one + two.substr(0, 900)), "");
    CHECK(cut.documents.size() == 1);
    CHECK(cut.report.bad == Counts{{"cut short", 1}});
    CHECK(cut.report.first_bad ==
          std::vector<std::string>{
              fmt::format("s/x.warc:{}: record 2: cut short: the file ends inside the record", one.size())});
    std::string damaged = gzip_bytes(two);
    damaged[damaged.size() - 6] ^= 1;
    const Read read = read_source(folder.write("x.warc.gz", gzip_bytes(one) + damaged + gzip_bytes(one)), "");
    CHECK(read.documents.size() == 2);
    CHECK(read.report.bad == Counts{{"damaged record", 1}});
    const auto lost = folder.write("lost.warc", one + "rubbish\r\n" + std::string(2 << 20, 'x') + "\r\n" + one);
    const Caught refused = caught([&] { read_source(lost, ""); });
    CHECK(refused.code == 3);
    CHECK(refused.says("bytes behind damage hold no record that could be found; fetch the file again"));
    CHECK(read_source(lost, "", {.max_bad_share = 1}).documents.size() == 2);
    CHECK(caught([&] {
            read_source(folder.write("no.warc", "not a WARC file at all"), "");
          }).says("1 of 1 records are damaged: s/no.warc:0: record 1: no record begins there"));
  }

  TEST_CASE("wet: conversions as they stand") {
    const ScratchFolder folder;
    const auto conversion = [](const std::string& text, const std::string& type = "text/plain") {
      return record(
          "WARC-Type: conversion\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Target-URI: http://a.example/\r\n"
          "WARC-Block-Digest: sha1:B\r\nContent-Type: " +
              type + "\r\n",
          text);
    };
    const Read read = read_source(
        folder.write("x.warc.wet.gz", gzip_bytes(record("WARC-Type: warcinfo\r\n", "x")) +
                                          gzip_bytes(conversion("Caf\xC3\xA9\n")) + gzip_bytes(conversion("\xFF")) +
                                          gzip_bytes(conversion("x", "text/csv"))),
        "");
    REQUIRE(read.documents.size() == 1);
    CHECK(read.documents[0].text == "Caf\xC3\xA9\n");
    CHECK_FALSE(read.documents[0].is_page);
    CHECK(read.documents[0].metadata == "\"url\":\"http://a.example/\",\"digest\":\"sha1:B\"");
    CHECK(read.report.passed == Counts{{"type warcinfo", 1}, {"not text/plain", 1}});
    CHECK(read.report.bad == Counts{{"invalid UTF-8", 1}});
  }

  TEST_CASE("html, text, code: a file is a document") {
    const ScratchFolder folder;
    const Read html = read_source(folder.write("a.html", "<meta charset=koi8-r><p>\xF0"), "");
    REQUIRE(html.documents.size() == 1);
    CHECK(html.documents[0].text == "<meta charset=koi8-r><p>\xD0\x9F");
    CHECK(html.documents[0].is_page);
    CHECK(html.documents[0].id == "s/a.html");
    CHECK(html.documents[0].metadata.empty());
    CHECK(read_source(folder.write("a.html.gz", gzip_bytes("<p>x")), "").documents.at(0).text == "<p>x");
    const Read text = read_source(folder.write("a.txt", "\xEF\xBB\xBFone\r\ntwo"), "");
    CHECK(text.documents.at(0).text == "one\r\ntwo");
    CHECK_FALSE(text.documents[0].is_page);
    CHECK(read_source(folder.write("b.txt", "na\xEFve text"), "").documents.at(0).text == "na\xC3\xAFve text");
    CHECK(read_source(folder.write("c.txt", std::string("\xFF\xFEx\0", 4)), "").documents.at(0).text == "x");
    CHECK(read_source(folder.write("d.txt", "\xC3\xA9\xC3\xA9\xC3\xA9\xFF"), "").report.bad ==
          Counts{{"invalid UTF-8", 1}});
    CHECK(read_source(folder.write("e.txt", ""), "").report.passed == Counts{{"empty", 1}});
    CHECK(read_source(folder.write("f.txt", std::string(2000, 'x')), "", {.max_document_bytes = 1000}).report.bad ==
          Counts{{"too long", 1}});
    CHECK(read_source(folder.write("g.txt.gz", gzip_bytes("text").substr(0, 15)), "").report.bad ==
          Counts{{"cut short", 1}});
    folder.write("src/lib/a.c", "int a;\n");
    const Read code = read_source(folder / "src", "code");
    REQUIRE(code.documents.size() == 1);
    CHECK(code.documents[0].text == "int a;\n");
    CHECK(code.documents[0].id == "s/lib/a.c");
    CHECK(code.documents[0].metadata == "\"path\":\"lib/a.c\"");
    CHECK(read_source(folder.write("a.out", std::string("ELF\0\1\2", 6)), "code").report.passed ==
          Counts{{"binary", 1}});
  }

  TEST_CASE("sources: the licence that a record names, wherever it does, comes before its source's") {
    const ScratchFolder folder;
    const Read read = read_source(folder.write("x.jsonl", R"({"text":"a","license":"MIT"}
{"text":"b","license":["MIT","ISC"]}
{"text":"c","license":"MIT","metadata":{"license":"ISC"}}
{"text":"d"}
)"),
                                  "");
    REQUIRE(read.documents.size() == 4);
    CHECK(read.documents[0].license == "MIT");
    CHECK_FALSE(read.documents[0].is_source_license);
    CHECK(read.documents[0].fields == R"("license":"MIT")");
    CHECK(read.documents[1].license == "CC0-1.0");
    CHECK(read.documents[1].is_source_license);
    CHECK(read.documents[2].license == "ISC");
    CHECK_FALSE(read.documents[2].is_source_license);
    CHECK(read.documents[3].is_source_license);
  }

  TEST_CASE("parquet: every packing, large strings, dictionaries, structures and nulls give the same documents") {
    if (!can_read_parquet()) {
      MESSAGE("skipped: coppice-parquet was not built (make parquet)");
      CHECK_FALSE(can_read_parquet());
      return;
    }
    for (const char* name : {"zstd", "snappy", "gzip", "none", "large_string", "dictionary", "nested"}) {
      const std::string file = std::string(name) + ".parquet";
      const bool is_nested = std::string(name) == "nested";
      const Read read = read_source(kFixtures / file, "", {}, is_nested ? "page.body" : "text");
      REQUIRE_MESSAGE(read.documents.size() == 3, name);
      CHECK(read.documents[0].text == "One.");
      CHECK(read.documents[1].text == "Na\xC3\xAFve \"two\"\\\n\tend");
      CHECK(read.documents[2].text == "Four \xF0\x9F\x98\x80");
      CHECK(read.report.records == 5);
      CHECK(read.report.passed == Counts{{"empty", 2}});
      CHECK(read.bytes_read == std::filesystem::file_size(kFixtures / file));
      CHECK(read.documents[0].id == (is_nested ? "0" : "a"));
      if (is_nested) continue;
      CHECK(read.documents[0].license == "CC0-1.0");
      CHECK(read.documents[0].metadata ==
            "\"url\":\"https://example.com/0\",\"score\":0.5,\"count\":1,\"flag\":true,\"day\":\"2026-01-31\"");
      CHECK(read.documents[2].id == "s/" + file + "#5");
      CHECK(read.documents[2].license == "MIT");
    }
    CHECK(read_source(kFixtures / "empty.parquet", "").report.records == 0);
    CHECK(read_source(kFixtures / "none.parquet", "", {.max_bad_share = 1, .max_document_bytes = 12}).report.bad ==
          Counts{{"too long", 1}});
  }

  TEST_CASE("parquet: damaged files and columns that are not there are refused, whatever they do to their reader") {
    if (!can_read_parquet()) {
      MESSAGE("skipped: coppice-parquet was not built (make parquet)");
      CHECK_FALSE(can_read_parquet());
      return;
    }
    const ScratchFolder folder;
    const std::string bytes = slurp(kFixtures / "zstd.parquet");
    const Caught column = caught([&] { read_source(kFixtures / "zstd.parquet", "", {}, "body"); });
    CHECK(column.code == 3);
    CHECK(column.says("no column 'body' of text among 'id', 'text', 'url'"));
    CHECK(caught([&] { read_source(folder.write("cut.parquet", bytes.substr(0, bytes.size() / 2)), ""); }).code == 3);
    CHECK(caught([&] { read_source(folder.write("no.parquet", "PAR1 not"), ""); }).code == 3);
    CHECK(caught([&] { read_source(folder.write("empty.parquet", ""), ""); }).code == 3);
    int refused = 0;
    for (size_t at = 4; at < bytes.size(); at += bytes.size() / 40) {  // every outcome but another exit code
      std::string damaged = bytes;
      for (size_t i = at; i < std::min(at + 8, bytes.size()); ++i) damaged[i] = static_cast<char>(~damaged[i]);
      const auto path = folder.write("damaged.parquet", damaged);
      const int code = caught([&] { read_source(path, ""); }).code;
      CHECK((code == 0 || code == 3));
      refused += code == 3;
    }
    CHECK(refused > 10);
  }

  TEST_CASE("parquet: rows are numbered whatever the ones before hold") {
    const ScratchFolder folder;
    const auto program = folder.write("reader", R"(#!/bin/sh
cat <<'END'
{"text":"one"}
{"text":
too long
{"text":"four"}
END
)");
    std::filesystem::permissions(program, std::filesystem::perms::owner_all);
    const char* before = std::getenv("COPPICE_PARQUET");
    const std::string kept = before == nullptr ? "" : before;
    setenv("COPPICE_PARQUET", program.c_str(), 1);
    const Read read = read_source(folder.write("x.parquet", "PAR1"), "");
    before == nullptr ? unsetenv("COPPICE_PARQUET") : setenv("COPPICE_PARQUET", kept.c_str(), 1);
    REQUIRE(read.documents.size() == 2);
    CHECK(read.documents[0].line == 1);
    CHECK(read.documents[1].line == 4);
    REQUIRE(read.report.first_bad.size() == 2);
    CHECK(read.report.first_bad[0].starts_with("s/x.parquet:2: record 2: "));
    CHECK(read.report.first_bad[1].starts_with("s/x.parquet:3: record 3: is longer than "));
  }

  TEST_CASE("parquet: without its program the refusal names the command") {
    const char* before = std::getenv("COPPICE_PARQUET");
    const std::string kept = before == nullptr ? "" : before;
    setenv("COPPICE_PARQUET", "/nowhere/coppice-parquet", 1);
    const Caught refused = caught([&] { read_source(kFixtures / "zstd.parquet", ""); });
    before == nullptr ? unsetenv("COPPICE_PARQUET") : setenv("COPPICE_PARQUET", kept.c_str(), 1);
    CHECK(refused.code == 2);
    CHECK(refused.says("corpus.toml:3: "));
    CHECK(refused.says("`make parquet` fetches what it needs and builds it"));
  }

  TEST_CASE("convert: every kind into files of about equal size, pages known as pages") {
    const ScratchFolder folder;
    folder.write("in/a.jsonl", "{\"text\":\"one\",\"x\":[1]}\n{\"text\":\"two\"}\nrubbish\n");
    folder.write("in/b.warc", response(1, page("<p>three")));
    folder.write("in/c.txt", "four");
    ConvertOptions options{.inputs = {(folder / "in").string()}, .out = folder / "out"};
    options.file_bytes = 6;
    const ConvertReport report = convert_to_documents(options);
    CHECK(report.files == std::vector<std::string>{"documents-00000.jsonl.zst", "documents-00001.jsonl.zst",
                                                   "documents-00002.jsonl.zst"});
    CHECK(report.total.documents == 4);
    CHECK(report.total.bad == Counts{{"no JSON", 1}});
    CHECK(report.total.first_bad.size() == 1);
    CHECK(report.pages == 1);
    CHECK(report.text_bytes == 3 + 3 + 8 + 4);
    const Read back = read_source(folder / "out/documents-00000.jsonl.zst", "");
    REQUIRE(back.documents.size() == 2);
    CHECK(back.documents[0].id == "in/a.jsonl#1");
    CHECK(back.documents[0].fields == "\"x\":[1]");
    CHECK_FALSE(back.documents[0].is_page);
    const Read pages = read_source(folder / "out/documents-00001.jsonl.zst", "");
    CHECK(pages.documents.at(0).is_page);
    CHECK(pages.documents[0].fields.empty());
    CHECK(pages.documents[0].id == "<urn:uuid:1>");
    CHECK(metadata_text(pages.documents[0], "url") == "http://example.com/1");
    CHECK(caught([&] { convert_to_documents(options); }).says("holds documents-0000"));
    CHECK(caught([&] { convert_to_documents({.inputs = {}, .out = folder / "x"}); }).says("no input"));
    options = {.inputs = {(folder / "in/*.txt").string(), (folder / "in/a.jsonl").string()}, .out = folder / "two"};
    CHECK(convert_to_documents(options).files.size() == 1);
    const Read named = read_source(folder / "two/documents-00000.jsonl.zst", "");
    CHECK(named.documents.at(0).id == "in-2/a.jsonl#1");
    CHECK(named.documents.at(2).id == "in/c.txt");
  }
}
