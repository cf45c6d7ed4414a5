// The driver of steps, with steps of the test's own: what each decision does, a file for each input, resuming after a
// kill at every system call and after a signal.
#include "src/text/steps/run_step.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/signals.h"
#include "src/text/byte_source.h"
#include "src/text/steps/step_table.h"
#include "tests/caught.h"
#include "tests/child_process.h"
#include "tests/scratch_folder.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// A document a line of a .txt file, `name#line`.
void read_lines(const InputFile& file, const StepOptions& options, const std::function<void(Document&&)>& take) {
  LineReader lines(file.path, ByteSource::Coding::plain, 1000);
  for (std::string_view line; lines.next(line);)
    take({.id = fmt::format("{}#{}", file.name, lines.line_number()),
          .source = options.source,
          .text = std::string(line)});
}

Decision drop_long(Document& document) {
  const auto bytes = static_cast<double>(document.text.size());
  return bytes <= 8 ? Decision::keep() : Decision::drop("bytes", bytes, 8);
}
Decision no_digits(Document& document) {
  const size_t digits = std::erase_if(document.text, [](char c) { return c >= '0' && c <= '9'; });
  return digits > 0 ? Decision::change() : Decision::keep();
}
Decision drop_empty(Document& document) { return document.text.empty() ? Decision::drop("empty") : Decision::keep(); }
Decision stop_at(Document& document) {
  if (document.text == "stop") ::raise(SIGTERM);
  return Decision::keep();
}

constexpr StepRow kTestStep = {.name = "lines",
                               .about = "",
                               .example = "",
                               .expected = "a folder or a .txt",
                               .reads = [](const fs::path& path) { return path.extension() == ".txt"; },
                               .read = read_lines,
                               .chain =
                                   [](const StepOptions&, const StepReport&) {
                                     return std::vector<MapStep>{stop_at, drop_long, no_digits, drop_empty};
                                   }};

struct Tree {
  ScratchFolder scratch;
  Tree() {
    add("a.txt", "one\ntwo2\n33\nfar too long\n");
    add("sub/b.txt", "three\n");
    add("sub/c.txt", "44\n");
  }
  void add(const std::string& name, const std::string& text) const {
    fs::create_directories((scratch / "in" / name).parent_path());
    spill(scratch / "in" / name, text);
  }
  StepOptions options(const std::string& output) const {
    return {.source = "tree", .output = scratch / output, .inputs = {scratch / "in"}};
  }
};

/// Every file below a folder by its relative name, but for the lock.
std::map<std::string, std::string> files_below(const fs::path& folder) {
  std::map<std::string, std::string> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != ".lock")
      files[entry.path().lexically_relative(folder).generic_string()] = slurp(entry.path());
  return files;
}

std::string unpacked(const fs::path& path) {
  ByteSource source(path, ByteSource::Coding::zstd);
  std::string text;
  for (std::string_view block = source.next(); !block.empty(); block = source.next()) text += block;
  return text;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("steps: kept, changed and dropped documents, with the value that decided") {
    const Tree tree;
    const StepReport report = run_step(kTestStep, tree.options("out.jsonl"));
    CHECK(report.files == 3);
    CHECK(report.documents == 3);
    CHECK(report.changed == 1);      // "two2"; "33" and "44" are changed, too, and go all the same
    CHECK(report.text_bytes == 11);  // one, two, three
    CHECK(report.removed == std::map<std::string, uint64_t>{{"bytes", 1}, {"empty", 2}});
    CHECK(slurp(tree.scratch / "out.jsonl") ==
          "{\"id\":\"tree/a.txt#1\",\"source\":\"tree\",\"text\":\"one\",\"metadata\":{\"license\":\"\"}}\n"
          "{\"id\":\"tree/a.txt#2\",\"source\":\"tree\",\"text\":\"two\",\"metadata\":{\"license\":\"\"}}\n"
          "{\"id\":\"tree/sub/b.txt#1\",\"source\":\"tree\",\"text\":\"three\",\"metadata\":{\"license\":\"\"}}\n");
  }

  TEST_CASE("steps: a folder gets a file for each input, its removals and its counts") {
    const Tree tree;
    const StepReport report = run_step(kTestStep, tree.options("out"));
    CHECK(report.documents == 3);
    const auto files = files_below(tree.scratch / "out");
    std::vector<std::string> names;
    for (const auto& [name, bytes] : files) names.push_back(name);
    CHECK(names == std::vector<std::string>{"documents/tree/a.txt.jsonl.zst", "documents/tree/sub/b.txt.jsonl.zst",
                                            "documents/tree/sub/c.txt.jsonl.zst", "removed/lines/tree/a.txt.jsonl.zst",
                                            "removed/lines/tree/sub/c.txt.jsonl.zst", "stats/lines.json",
                                            "stats/lines/tree/a.txt.json", "stats/lines/tree/sub/b.txt.json",
                                            "stats/lines/tree/sub/c.txt.json"});
    CHECK(
        unpacked(tree.scratch / "out/documents/tree/sub/c.txt.jsonl.zst").empty());  // finished, though nothing is left
    CHECK(unpacked(tree.scratch / "out/removed/lines/tree/a.txt.jsonl.zst") ==
          "{\"id\":\"tree/a.txt#3\",\"source\":\"tree\",\"rule\":\"empty\"}\n"
          "{\"id\":\"tree/a.txt#4\",\"source\":\"tree\",\"rule\":\"bytes\",\"value\":12.0,\"threshold\":8.0}\n");
    const Json sum = read_sealed(tree.scratch / "out/stats/lines.json", "coppice.step", 1)["counts"];
    CHECK(sum ==
          Json::parse(R"({"files":3,"documents":3,"changed":1,"text_bytes":11,"removed":{"bytes":1,"empty":2}})"));
  }

  TEST_CASE("steps: a finished file is not done again, and only what it was made of may continue it") {
    const Tree tree;
    const StepOptions options = tree.options("out");
    run_step(kTestStep, options);
    const auto first = files_below(tree.scratch / "out");
    fs::remove(tree.scratch / "out/documents/tree/a.txt.jsonl.zst");
    const fs::file_time_type kept = fs::last_write_time(tree.scratch / "out/documents/tree/sub/b.txt.jsonl.zst");
    const StepReport again = run_step(kTestStep, options);
    CHECK(again.files == 3);
    CHECK(again.files_before == 2);
    CHECK(again.removed.at("empty") == 2);
    CHECK(fs::last_write_time(tree.scratch / "out/documents/tree/sub/b.txt.jsonl.zst") == kept);
    CHECK(files_below(tree.scratch / "out") == first);

    StepOptions other = options;
    other.license = "MIT";
    CHECK(caught([&] { run_step(kTestStep, other); }).says("\"license\":\"MIT\""));
    tree.add("sub/b.txt", "other\n");
    const Caught changed = caught([&] { run_step(kTestStep, options); });
    CHECK(changed.code == 3);
    CHECK(changed.says("documents/tree/sub/b.txt.jsonl.zst"));
    fs::remove(tree.scratch / "out/documents/tree/sub/b.txt.jsonl.zst");
    CHECK(run_step(kTestStep, options).files_before == 2);
    CHECK(unpacked(tree.scratch / "out/documents/tree/sub/b.txt.jsonl.zst").find("other") != std::string::npos);
  }

  TEST_CASE("steps: every row of the table can be asked for, and its example names it") {
    for (const StepRow& row : step_table()) {
      CHECK(std::string(row.example).starts_with(fmt::format("coppice data {} ", row.name)));
      CHECK(std::string(row.about).size() > 10);
    }
  }

  TEST_CASE("steps: what --output may be") {
    const Tree tree;
    for (const char* name : {"a.txt", "a.jsonl.gz", "a.json", "a.zst"})
      CHECK(caught([&] { run_step(kTestStep, tree.options(name)); }).code == 2);
    StepOptions sampled = tree.options("folder");
    sampled.max_bytes = 100;
    CHECK(caught([&] { run_step(kTestStep, sampled); }).says("--max-bytes"));
    CHECK_FALSE(fs::exists(tree.scratch / "folder"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("steps: killed after each system call, the same command finishes with the same bytes") {
    const Tree tree;
    const StepOptions options = tree.options("out");
    run_step(kTestStep, options);
    const auto expected = files_below(tree.scratch / "out");
    int num_kills = 0;
    for (;; ++num_kills) {
      REQUIRE(num_kills < 300);
      fs::remove_all(options.output);
      const int code = run_in_child([&] {
        set_failpoints("", static_cast<uint64_t>(num_kills) + 1);
        run_step(kTestStep, options);
      });
      CAPTURE(num_kills);
      CHECK((code == 0 || code == 128 + SIGKILL));
      // What stands under a final name is whole.
      for (const auto& [name, bytes] : files_below(options.output))
        if (name.starts_with("documents/") && name.find(".tmp-") == std::string::npos)
          CHECK(bytes == expected.at(name));
      run_step(kTestStep, options);
      CHECK(files_below(options.output) == expected);
      if (code == 0) break;
    }
    CHECK(num_kills > 30);
  }

  TEST_CASE("steps: a signal stops between two documents; finished files are kept") {
    const Tree tree;
    tree.add("sub/b.txt", "three\nstop\nfour\n");
    const StepOptions options = tree.options("out");
    const int code = run_in_child([&] {
      install_signal_handlers(0);
      try {
        run_step(kTestStep, options);
      } catch (const Stopped& stopped) {
        ::_exit(std::string(stopped.what()).starts_with("stopped after 1 of 3 files") ? 75 : 76);
      }
    });
    CHECK(code == 75);
    CHECK(fs::exists(tree.scratch / "out/documents/tree/a.txt.jsonl.zst"));
    CHECK_FALSE(fs::exists(tree.scratch / "out/documents/tree/sub/b.txt.jsonl.zst"));
    for (const auto& [name, bytes] : files_below(tree.scratch / "out")) CHECK(name.find(".tmp-") == std::string::npos);

    const StepOptions one = tree.options("out.jsonl");
    const int code_of_one = run_in_child([&] {
      install_signal_handlers(0);
      try {
        run_step(kTestStep, one);
      } catch (const Stopped& stopped) {
        ::_exit(std::string(stopped.what()).starts_with("stopped after 2 files; nothing was written") ? 75 : 76);
      }
    });
    CHECK(code_of_one == 75);
    CHECK_FALSE(fs::exists(one.output));
  }

  TEST_CASE("steps: a file that cannot be read is counted, recorded and not tried again; a full disk is no such file") {
    const Tree tree;
    tree.add("sub/d.txt", std::string(2000, 'x'));  // LineReader refuses lines beyond 1000 bytes
    const StepOptions options = tree.options("out");
    CHECK(run_step(kTestStep, options).removed.at("unreadable") == 1);
    CHECK(unpacked(tree.scratch / "out/removed/lines/tree/sub/d.txt.jsonl.zst") ==
          "{\"id\":\"tree/sub/d.txt\",\"source\":\"tree\",\"rule\":\"unreadable\"}\n");
    CHECK(run_step(kTestStep, options).files_before == 4);
    set_failpoints("io.fsync=error@1");
    CHECK(caught([&] { run_step(kTestStep, tree.options("other")); }).code == 4);
    set_failpoints("");
  }
}

}  // namespace coppice
