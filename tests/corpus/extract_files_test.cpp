// `coppice data extract` on a small tree: ids, order, budget, duplicates, and what a user may get wrong.
#include "src/corpus/extract_files.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/text/documents.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

struct Tree {
  ScratchFolder scratch;
  const fs::path& path = scratch.path;
  void add(const std::string& name, const std::string& bytes) const { scratch.write("in/" + name, bytes); }
  ExtractOptions options() const {
    return {.source = "tree",
            .license = "CC0-1.0",
            .output = path / "out" / "tree.jsonl.zst",
            .max_bytes = 0,
            .inputs = {path / "in"}};
  }
};

/// A text of `bytes` bytes that no other number gives.
std::string text_of(int number, size_t bytes) {
  std::string text = "document " + std::to_string(number) + " ";
  while (text.size() < bytes) text += "and so on ";
  text.resize(bytes);
  return text;
}

std::vector<Document> read_documents(const fs::path& path) {
  std::vector<Document> documents;
  for_each_document(path, [&](Document&& document) { documents.push_back(std::move(document)); });
  return documents;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("extract: ids, source and licence; duplicates, short and foreign files are left out") {
    const Tree tree;
    tree.add("b.txt", text_of(1, 300));
    tree.add("a.py", text_of(2, 300));
    tree.add("sub/c.md", text_of(3, 300));
    tree.add("sub/same-as-b.txt", text_of(1, 300));
    tree.add("short.txt", "too short");
    tree.add("picture.png", text_of(4, 300));
    fs::create_symlink(tree.path / "in" / "b.txt", tree.path / "in" / "link.txt");

    const ExtractReport report = extract_files(tree.options());
    CHECK(report.documents == 3);
    CHECK(report.files == 5);
    CHECK(report.text_bytes == 900);
    CHECK(report.removed == std::map<std::string, uint64_t>{{"duplicate", 1}, {"short", 1}});
    CHECK_FALSE(report.reached_max_bytes);

    const std::vector<Document> documents = read_documents(tree.options().output);
    REQUIRE(documents.size() == 3);
    CHECK(documents[0].id == "tree/a.py");
    CHECK(documents[0].text == text_of(2, 300));
    CHECK(documents[1].id == "tree/b.txt");  // of two equal texts the first one visited
    CHECK(documents[2].id == "tree/sub/c.md");
    for (const Document& document : documents) {
      CHECK(document.source == "tree");
      CHECK(document.license == "CC0-1.0");
    }
  }

  TEST_CASE("extract: a dictionary gives numbered documents") {
    const Tree tree;
    const std::string block = "word\n   " + std::string(5000, 'w') + "\n";
    tree.add("words.dict", block + "\nother" + block);
    extract_files(tree.options());
    const std::vector<Document> documents = read_documents(tree.options().output);
    REQUIRE(documents.size() == 2);
    CHECK(documents[0].id == "tree/words.dict#1");
    CHECK(documents[1].id == "tree/words.dict#2");
    CHECK(documents[1].text == "other" + block);
  }

  TEST_CASE("extract: the budget is kept, filled, spread over the tree, and gives the same bytes again") {
    const Tree tree;
    for (int i = 0; i < 100; ++i) tree.add((i < 50 ? "" : "sub/") + std::to_string(i) + ".txt", text_of(i, 400));
    ExtractOptions options = tree.options();
    options.max_bytes = 8100;  // 20 documents fill 98.8% of it: the rest is tried and does not fit
    const ExtractReport report = extract_files(options);
    CHECK(report.documents == 20);
    CHECK(report.text_bytes == 8000);
    CHECK(report.removed.at("does not fit") == 80);

    options.max_bytes = 8000;
    CHECK(extract_files(options).reached_max_bytes);
    size_t in_sub = 0;
    for (const Document& document : read_documents(options.output)) in_sub += document.id.starts_with("tree/sub/");
    CHECK(in_sub > 3);  // a sample of both folders: by hash 10 of 20 expected
    CHECK(in_sub < 17);

    const std::string first = sha256_file(options.output);
    extract_files(options);
    CHECK(sha256_file(options.output) == first);
  }

  TEST_CASE("extract: a sample says nothing about which documents are held out") {
    const Tree tree;
    for (int i = 0; i < 2000; ++i) tree.add(std::to_string(i) + ".txt", text_of(i, 240));
    ExtractOptions options = tree.options();
    options.max_bytes = 400 * 240;  // a fifth of the tree
    REQUIRE(extract_files(options).documents >= 390);
    size_t documents = 0, heldout = 0;
    for (const Document& document : read_documents(options.output)) {
      ++documents;
      heldout += is_heldout(document.id, 0.1);
    }
    CHECK(heldout > documents / 20);  // a tenth expected, which is 40 with a standard deviation of 6; a sample by the
                                      // same hash would hold out half
    CHECK(heldout < documents / 5);
  }

  TEST_CASE("extract: a file that cannot be read is warned about and left out") {
    const Tree tree;
    tree.add("a.txt", text_of(1, 300));
    std::string open;
    for (int i = 0; i < 6000; ++i) open += "<div>";
    tree.add("b.html", open);
    tree.add("c.txt.gz", "no gzip at all");
    const ExtractReport report = extract_files(tree.options());
    CHECK(report.documents == 1);
    CHECK(report.removed == std::map<std::string, uint64_t>{{"unreadable", 2}});
  }

  TEST_CASE("extract: without a budget the documents come in the order of the files, one file in memory at a time") {
    const Tree tree;
    for (int i = 0; i < 12; ++i) tree.add(std::to_string(i) + ".txt", text_of(i, 400));
    tree.add("5a.dict", "word\n   " + std::string(5000, 'w') + "\n\nother\n   " + std::string(5000, 'o') + "\n");
    extract_files(tree.options());
    std::vector<std::string> ids;
    for (const Document& document : read_documents(tree.options().output)) ids.push_back(document.id);
    CHECK(ids.size() == 14);
    CHECK(std::is_sorted(ids.begin(), ids.end()));
  }

  TEST_CASE("extract: what a user may get wrong, with its exit code") {
    const Tree tree;
    tree.add("picture.png", text_of(1, 300));
    const auto code_of = [](const ExtractOptions& options) {
      try {
        extract_files(options);
      } catch (const Error& error) {
        return error.code();
      }
      return ExitCode::done;
    };
    ExtractOptions options = tree.options();
    CHECK(code_of(options) == ExitCode::bad_file);  // a folder without text
    CHECK_FALSE(fs::exists(options.output));
    options.inputs = {tree.path / "missing"};
    CHECK(code_of(options) == ExitCode::bad_file);
    options.inputs = {tree.path / "in" / "picture.png"};
    CHECK(code_of(options) == ExitCode::bad_file);
    options.inputs = {};
    CHECK(code_of(options) == ExitCode::recipe);
    options = tree.options();
    options.source = "";
    CHECK(code_of(options) == ExitCode::recipe);
    tree.add("a.txt", text_of(2, 300));
    tree.add("sub/a.txt", text_of(3, 300));
    options = tree.options();
    options.inputs = {tree.path / "in" / "a.txt", tree.path / "in" / "sub" / "a.txt"};
    CHECK(code_of(options) == ExitCode::recipe);  // one id for two files
  }

  TEST_CASE("extract: a folder is a corpus of one source, a file for each input") {
    const Tree tree;
    tree.add("a.txt", text_of(1, 300));
    tree.add("sub/b.txt", text_of(2, 300));
    tree.add("sub/short.txt", "too short");
    tree.add("sub/torn.txt.gz", "no gzip at all");
    ExtractOptions options = tree.options();
    options.output = tree.path / "folder";
    const ExtractReport report = extract_files(options);
    CHECK(report.files == 4);
    CHECK(report.documents == 2);
    CHECK(report.text_bytes == 600);
    const std::vector<Document> documents = read_documents(options.output / "documents/tree/sub/b.txt.jsonl.zst");
    REQUIRE(documents.size() == 1);
    CHECK(documents[0].id == "tree/sub/b.txt");
    CHECK(documents[0].license == "CC0-1.0");
    CHECK(fs::exists(options.output / "documents/tree/sub/torn.txt.gz.jsonl.zst"));  // done, though nothing is in it
    CHECK(fs::exists(options.output / "removed/extract/tree/sub/short.txt.jsonl.zst"));
    CHECK(read_file(options.output / "report.md").find("1 unreadable") != std::string::npos);
    CHECK(extract_files(options).documents == 2);
    tree.add("a.txt", text_of(3, 300));
    CHECK(caught([&] { extract_files(options); }).says("which now has"));
  }

  TEST_CASE("extract: what --output may be") {
    const Tree tree;
    tree.add("a.txt", text_of(1, 300));
    ExtractOptions options = tree.options();
    for (const char* name : {"a.txt", "a.jsonl.gz", "a.json", "a.zst"}) {
      options.output = tree.path / name;
      CHECK(caught([&] { extract_files(options); }).code == 2);
    }
    options.output = tree.path / "folder";
    options.max_bytes = 100;
    CHECK(caught([&] { extract_files(options); }).says("--max-bytes"));
    CHECK_FALSE(fs::exists(options.output));
  }
}

}  // namespace coppice
