// Which files hold text, what comes out of them, and what is turned away; all on files of a few lines.
#include "src/text/extraction.h"

#include <doctest/doctest.h>

#include <fstream>

#include "src/base/errors.h"
#include "tests/scratch_folder.h"
#include "tests/text/packed.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

const std::string kLong(kMinDocumentBytes, 'x');

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("text_kind: by name, with .gz behind it, and not for index pages") {
    CHECK(text_kind("a/b/page.html") == TextKind::html);
    CHECK(text_kind("page.html.gz") == TextKind::html);
    CHECK(text_kind("notes.rst.gz") == TextKind::plain);
    CHECK(text_kind("module.py") == TextKind::plain);
    CHECK(text_kind("gcide.dict.dz") == TextKind::dictionary);
    CHECK(text_kind("words.dict") == TextKind::dictionary);
    CHECK(text_kind("genindex.html") == TextKind::none);
    CHECK(text_kind("index.html.gz") == TextKind::none);
    CHECK(text_kind("index.py") == TextKind::plain);  // only pages have indexes
    CHECK(text_kind("logo.png") == TextKind::none);
    CHECK(text_kind("archive.gz") == TextKind::none);
    CHECK(text_kind("README") == TextKind::none);
  }

  TEST_CASE("split_entries: cuts before an entry once the block is full, and loses only the empty line between") {
    const std::string text = "ant\n   insect\n\n   second sense\n\nbee\n   insect\n\ncat\n   mammal\n\n";
    CHECK(split_entries(text, 1) ==
          std::vector<std::string>{"ant\n   insect\n\n   second sense\n", "bee\n   insect\n", "cat\n   mammal\n\n"});
    CHECK(split_entries(text, 40) ==
          std::vector<std::string>{"ant\n   insect\n\n   second sense\n\nbee\n   insect\n", "cat\n   mammal\n\n"});
    CHECK(split_entries(text, 1000) == std::vector<std::string>{text});
    CHECK(split_entries("", 1).empty());
  }

  TEST_CASE("extract_texts: plain, gzip, dictionary and pages; an unknown name gives nothing") {
    const ScratchFolder folder;
    CHECK(extract_texts(folder.write("a.txt", "one\ntwo\n")) == std::vector<std::string>{"one\ntwo\n"});
    CHECK(extract_texts(folder.write("b.rst.gz", test::gzip_bytes("packed text\n"))) ==
          std::vector<std::string>{"packed text\n"});
    CHECK(extract_texts(folder.write("c.png", "not looked at")).empty());
    const std::string entry = "word\n   " + std::string(kDictionaryBlockBytes, 'w') + "\n";
    CHECK(extract_texts(folder.write("d.dict.dz", test::gzip_bytes(entry + "\n" + entry))) ==
          std::vector<std::string>{entry, entry});
  }

  TEST_CASE(
      "extract_texts: links that documentation tools repeat on every page are left out, links in sentences stay") {
    const ScratchFolder folder;
    const std::string page =
        "<html><head><title>T</title></head><body>"
        "<div class='related' role='navigation'><a>index</a></div>"
        "<div class=\"navheader\"><a>Prev</a></div><ul class='docnav top'><li>Next</li></ul>"
        "<h1>T<a class='headerlink'>P</a></h1><p>Read <a href='x'>this page</a> first.</p>"
        "<div class='navfooter'><a>Home</a></div></body></html>";
    CHECK(extract_texts(folder.write("page.html", page)) ==
          std::vector<std::string>{"T\n\nT\n\nRead this page first."});
  }

  TEST_CASE("extract_texts: a truncated gzip file is a bad file") {
    const ScratchFolder folder;
    folder.write("whole.txt.gz", test::gzip_bytes(std::string(5000, 'a') + kLong));
    std::ifstream in(folder.path / "whole.txt.gz", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    CHECK_THROWS_AS(extract_texts(folder.write("cut.txt.gz", bytes.substr(0, bytes.size() - 6))), UserError);
  }

  TEST_CASE("rejection_reason: short, binary, not UTF-8, navigation") {
    CHECK(rejection_reason(kLong, TextKind::plain) == nullptr);
    CHECK(std::string(rejection_reason(kLong.substr(1), TextKind::plain)) == "short");
    CHECK(std::string(rejection_reason(kLong + std::string(1, '\0'), TextKind::plain)) == "binary");
    CHECK(std::string(rejection_reason(kLong + "\xff", TextKind::plain)) == "not UTF-8");
    std::string wide;
    for (const char c : kLong) wide += {c, '\0'};
    CHECK(std::string(rejection_reason(wide, TextKind::plain)) == "UTF-16 or UTF-32, not UTF-8");
    std::string list = "Contents\n\n";
    for (int i = 0; i < 30; ++i) list += "- Chapter " + std::to_string(i) + "\n";
    CHECK(std::string(rejection_reason(list, TextKind::html)) == "navigation");
    CHECK(rejection_reason(list, TextKind::plain) == nullptr);  // only pages are judged by their lists
    CHECK(rejection_reason(list + std::string(list.size(), 'x'), TextKind::html) == nullptr);
  }
}

}  // namespace coppice
