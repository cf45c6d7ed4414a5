// Which files a source has.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>

#include "src/corpus/sources/path_pattern.h"
#include "src/corpus/sources/source.h"
#include "src/corpus/sources/source_kinds.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

SourceOptions source(const std::string& name, const std::filesystem::path& path, const std::string& kind = "") {
  return {.name = name, .where = "corpus.toml:3", .path = path.string(), .kind = kind};
}

/// `name kind` of each, of bundles their members.
std::vector<std::string> listed(const std::vector<SourceOptions>& sources) {
  std::vector<std::string> names;
  const auto add = [&](const SourceFile& file) {
    CHECK(std::filesystem::is_regular_file(file.path));
    names.push_back(file.name + " " + file.kind);
  };
  for (const SourceFile& file : list_source_files(sources)) {
    if (file.members.empty()) add(file);
    for (const SourceFile& member : file.members) add(member);
  }
  return names;
}

using Names = std::vector<std::string>;

bool matches(std::string_view pattern, const std::vector<std::string>& names) {
  return matches_pattern(split_pattern(pattern).names, names);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("sources: patterns of paths") {
    CHECK(matches("*.gz", {"a.gz"}));
    CHECK_FALSE(matches("*.gz", {"a.gz.x"}));
    CHECK_FALSE(matches("*.gz", {"b", "a.gz"}));
    CHECK_FALSE(matches("*.gz", {".gz"}));  // hidden
    CHECK(matches(".*z", {".gz"}));
    CHECK(matches("a?c*", {"abc"}));
    CHECK_FALSE(matches("a?c", {"ac"}));
    CHECK(matches("*a*b*", {"xxaxxbxx"}));
    CHECK(matches("**/x", {"x"}));
    CHECK(matches("**/x", {"a", "b", "x"}));
    CHECK_FALSE(matches("**/x", {".git", "x"}));
    CHECK(matches("*/**/b/*.c", {"a", "b", "b", "x.c"}));
    CHECK_FALSE(matches("*/**/b/*.c", {"b", "x.c"}));
    CHECK_FALSE(matches("**/b/**/b", {"b", "a"}));
    CHECK_FALSE(matches("*a*a*a*a*a*a*a*a*a*a*b", {std::string(5000, 'a')}));
    CHECK(split_pattern("/data/x/*/b?").folder == "/data/x");
    CHECK(split_pattern("*.gz").folder == ".");
  }

  TEST_CASE("sources: kinds by ending") {
    CHECK(source_kind_of("a.WARC.GZ") == "warc");
    CHECK(source_kind_of("CC-MAIN-1.warc.wet.gz") == "wet");
    CHECK(source_kind_of("a.json.zst") == "jsonl");
    CHECK(source_kind_of("a.parquet") == "parquet");
    CHECK(source_kind_of("a.parquet.gz").empty());
    CHECK(source_kind_of("a.htm") == "html");
    CHECK(source_kind_of("a.md") == "text");
    CHECK(source_kind_of("a.c").empty());
    CHECK(source_kind_of("gz").empty());
    CHECK(is_source_kind("code"));
    CHECK_FALSE(is_source_kind("pdf"));
  }

  TEST_CASE("sources: files, folders and patterns, sorted by name; links and devices passed over") {
    const ScratchFolder folder;
    for (const char* name : {"b/2.jsonl", "b/1.jsonl.gz", "b/page.html", "b/.hidden/3.jsonl", "b/.4.jsonl", "b/main.c",
                             "a/x.warc.gz", "a/deep/er/y.warc.gz", "a/deep/z.warc.wet.gz", "one.txt"})
      folder.write(name, "x");
    std::filesystem::create_symlink(folder / "b/2.jsonl", folder / "b/link.jsonl");
    std::filesystem::create_directory_symlink(folder / "a", folder / "b/a");
    REQUIRE(mkfifo((folder / "b/fifo.jsonl").c_str(), 0600) == 0);
    CHECK(listed({source("s", folder / "b")}) == Names{"s/1.jsonl.gz jsonl", "s/2.jsonl jsonl", "s/page.html html"});
    CHECK(listed({source("s", folder / "b", "html")}) == Names{"s/page.html html"});
    CHECK(listed({source("s", folder / "b", "code")}) ==
          Names{"s/1.jsonl.gz code", "s/2.jsonl code", "s/main.c code", "s/page.html code"});
    CHECK(listed({source("s", folder / "a/*.warc.gz")}) == Names{"s/x.warc.gz warc"});
    CHECK(listed({source("s", folder / "a/**/*.warc.gz")}) == Names{"s/deep/er/y.warc.gz warc", "s/x.warc.gz warc"});
    CHECK(listed({source("s", folder / "a/**")}) ==
          Names{"s/deep/er/y.warc.gz warc", "s/deep/z.warc.wet.gz wet", "s/x.warc.gz warc"});
    CHECK(listed({source("s", folder / "?/main.*", "text")}) == Names{"s/b/main.c text"});
    CHECK(listed({source("z", folder / "one.txt"), source("a", folder / "b/main.c", "text")}) ==
          Names{"a/main.c text", "z/one.txt text"});
    CHECK(listed({source("link", folder / "b/link.jsonl")}) == Names{"link/link.jsonl jsonl"});  // named, so meant
    const auto files = list_source_files({source("z", folder / "one.txt"), source("a", folder / "b")});
    CHECK(files.front().source == 1);
    CHECK(files.back().source == 0);
  }

  TEST_CASE("sources: outputs are called as files are, without endings where that tells them apart") {
    const ScratchFolder folder;
    for (const char* name : {"in/a.jsonl", "in/b.warc.gz", "in/b.wet.gz", "in/c.jsonl.zst", "in/c.jsonl.zst.jsonl.zst",
                             "in/d.e.parquet", "in/sub/a.jsonl.gz", "in/F.NDJSON", "in/g.warc.wet"})
      folder.write(name, "");
    folder.write("one/a.jsonl", "");
    folder.write("one/a.jsonl.gz", "");
    folder.write("pages/x.html", "");
    folder.write("pages/y.html", "");
    std::vector<std::string> outputs;
    for (const SourceFile& file :
         list_source_files({source("s", folder / "in"), source("t", folder / "one"), source("u", folder / "pages")}))
      outputs.push_back(file.output);
    CHECK(outputs == Names{"s/F", "s/a", "s/b.warc.gz", "s/b.wet.gz", "s/c", "s/c.jsonl.zst.jsonl.zst", "s/d.e", "s/g",
                           "s/sub/a", "t/a.jsonl", "t/a.jsonl.gz", "u/files-00001"});
  }

  TEST_CASE("sources: an output folder of a command line lies apart from its inputs") {
    const ScratchFolder folder;
    folder.write("in/a.jsonl", "");
    const auto refusal = [&](const char* out) {
      return caught([&] { check_output_apart({folder / "in", folder / "other.jsonl"}, folder / out); });
    };
    CHECK(refusal("out").code == 0);
    CHECK(refusal("inn").code == 0);
    CHECK(refusal("in/out").says("--output: source 'in': its folder "));
    CHECK(refusal("").says("lies in the corpus' folder"));
  }

  TEST_CASE("sources: what is refused names the source's place") {
    const ScratchFolder folder;
    folder.write("a/x.jsonl", "");
    folder.write("b/x.jsonl", "");
    folder.write("c/x.pdf", "");
    REQUIRE(mkfifo((folder / "fifo.jsonl").c_str(), 0600) == 0);
    const auto refusal = [](const std::vector<SourceOptions>& sources) {
      const Caught refused = caught([&] { list_source_files(sources); });
      CHECK(refused.code == 2);
      CHECK(refused.says("corpus.toml:3: source 's': "));
      return refused.text;
    };
    const auto says = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
    CHECK(says(refusal({source("s", folder / "a", "pdf")}),
               "kind: got 'pdf', expected warc, wet, jsonl, parquet, html, text or code"));
    CHECK(says(refusal({source("s", "")}), "path: a file, a folder or a pattern is missing"));
    CHECK(says(refusal({source("s", folder / "none")}), "no such file or folder"));
    CHECK(says(refusal({source("s", folder / "none/*.gz")}), "no such folder"));
    CHECK(says(refusal({source("s", folder / "c/x.pdf")}), "says no kind; name it"));
    CHECK(says(refusal({source("s", folder / "c")}), "a kind that is known by its ending; name the kind"));
    CHECK(says(refusal({source("s", folder / "a", "warc")}), "holds no file of kind warc"));
    CHECK(says(refusal({source("s", folder / "a/*.gz")}), "holds no file of"));
    CHECK(says(refusal({source("s", folder / "fifo.jsonl")}), "is neither a file nor a folder"));
    CHECK(says(refusal({source("s", folder / "a"), source("s", folder / "b")}),
               "are both called 's/x.jsonl'; give each source a name of its own"));
  }

  TEST_CASE("sources: files that are a document each are bundled in their order, up to 1,000 and 64 MB") {
    const ScratchFolder scratch;
    const std::filesystem::path folder = scratch.path / "pages";
    for (int i = 0; i < 2001; ++i) scratch.write(fmt::format("pages/{:04}.html", i), "<p>page " + std::to_string(i));
    scratch.write("pages/1000-b.jsonl", "{\"text\": \"a line\"}\n");
    scratch.write("pages/alone.txt", "a text");
    std::vector<SourceFile> files = list_source_files({source("s", folder)});
    REQUIRE(files.size() == 4);  // a file of lines stands between two bundles
    CHECK(files[0].name == "s/1000-b.jsonl");
    CHECK(files[1].name == "s/files-00001");
    CHECK(files[1].members.size() == 1000);
    CHECK(files[2].members.front().name == "s/1000.html");
    CHECK(files[2].members.size() == 1000);
    CHECK(files[3].members.size() == 2);
    CHECK(files[3].members.back().name == "s/alone.txt");
    CHECK(files[3].members.back().kind == "text");

    uint64_t bytes = 0, bytes_read = 0;
    std::vector<std::string> ids;
    for (const SourceFile& file : files) {
      bytes += stored_bytes(file);
      read_source_file(
          file, source("s", folder), {}, [&](Document&& document) { ids.push_back(document.id); }, &bytes_read);
    }
    CHECK(ids.size() == 2003);
    CHECK(ids[1] == "s/0000.html");
    CHECK(ids.back() == "s/alone.txt");
    CHECK(bytes_read == bytes);

    std::error_code error;
    for (int i = 0; i < 3; ++i) {  // sparse
      scratch.write(fmt::format("large/{}.txt", i), "x");
      std::filesystem::resize_file(scratch.path / "large" / fmt::format("{}.txt", i), 40'000'000, error);
    }
    files = list_source_files({source("l", scratch.path / "large")});
    REQUIRE(files.size() == 3);
    CHECK(files[0].members.empty());  // one that stands alone is no bundle
    CHECK(files[0].name == "l/0.txt");
  }
}
