#include <doctest/doctest.h>
#include <fmt/format.h>

#include <set>

#include "src/corpus/dedup/paragraphs.h"
#include "tests/caught.h"
#include "tests/corpus/dedup/group_runs.h"

using namespace coppice;
using namespace coppice::test;

namespace {

using Texts = std::vector<std::string>;

std::string line(char letter, size_t length = 200) { return std::string(length, letter); }

/// Texts of the documents that stay, "-" for one that goes.
Texts run(const GroupRun& run, const std::string& options = "") {
  const ScratchFolder folder("paragraphs");
  Texts texts;
  for (const auto& file : run.run(*group_step("paragraphs", options), folder.path))
    for (const Looked& one : file) texts.push_back(one.rule.empty() ? one.document.text : "-");
  return texts;
}

GroupRun files_of(const std::vector<Texts>& files) {
  GroupRun made;
  for (const Texts& texts : files) {
    GroupFile& file = made.files.emplace_back();
    for (const std::string& text : texts)
      file.documents.push_back(document(std::to_string(file.documents.size()), text));
  }
  return made;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("paragraphs: a line in three documents is cut after its first place") {
    const std::string own = line('x', 500), a = line('a'), b = line('b');
    const GroupRun made = files_of(
        {{a + "\n" + own + "1", own + "2\n" + a}, {own + "3\n  " + a + "\t\n" + b, b + "\n" + own + "4\n" + b}});
    CHECK(run(made) == Texts{a + "\n" + own + "1", own + "2", own + "3\n" + b, b + "\n" + own + "4\n" + b});
    CHECK(run(made, "min_documents = 4") == Texts{made.files[0].documents[0].text, made.files[0].documents[1].text,
                                                  made.files[1].documents[0].text, made.files[1].documents[1].text});
    CHECK(run(made, "min_documents = 2")[3] == own + "4");
  }

  TEST_CASE("paragraphs: lines are counted in code points, and short ones stay") {
    std::string wide;
    for (int i = 0; i < 199; ++i) wide += "\u00e9";
    const std::string own = line('x', 500);
    CHECK(run(files_of({{own + "1\n" + wide, own + "2\n" + wide, own + "3\n" + wide}}))[2] == own + "3\n" + wide);
    wide += "\u00e9";
    CHECK(run(files_of({{own + "1\n" + wide, own + "2\n" + wide, own + "3\n" + wide}}))[2] == own + "3");
  }

  TEST_CASE("paragraphs: who loses more than half goes, who loses half stays") {
    const std::string a = line('a', 200);
    const GroupRun made = files_of({{a, a, line('x', 198) + "\n" + a, line('y', 200) + "\n" + a + "\n"}});
    CHECK(run(made) == Texts{a, "-", "-", line('y', 200) + "\n"});
    CHECK(run(files_of({{a, a + "\n" + line('z', 202), a + "\n" + line('y', 202)}})) ==
          Texts{a, line('z', 202), line('y', 202)});
    CHECK(run(made, "max_lost = 1") == Texts{a, "", line('x', 198), line('y', 200) + "\n"});
  }

  TEST_CASE("paragraphs: what goes is cut as well, for the rules that measure it behind") {
    const std::string a = line('a', 200);
    const ScratchFolder folder("paragraphs");
    const auto files = files_of({{a, a, line('x', 198) + "\n" + a}}).run(*group_step("paragraphs", ""), folder.path);
    CHECK(files[0][2].rule == "lost_ratio");
    CHECK(files[0][2].document.text == line('x', 198));
  }

  TEST_CASE("paragraphs: the place in the source of the smaller priority is the first") {
    const std::string own = line('x', 300), a = line('a');
    GroupRun made = files_of({{own + "1\n" + a, own + "2\n" + a}, {own + "3\n" + a}});
    made.priorities = {2, 1};
    made.files[1].source = 1;
    CHECK(run(made) == Texts{own + "1", own + "2", own + "3\n" + a});
  }

  TEST_CASE("paragraphs: the same for any memory and order, files without documents or cuts among them") {
    GroupRun made;
    made.files.resize(7);
    for (uint64_t i = 0; i < 600; ++i)
      made.files[i % 5 + (i % 5 > 2 ? 1 : 0)].documents.push_back(
          document("", fmt::format("{}{}\n{}{}\n{}{}\nend", line('o', 500), i, line('p'), i % 150, line('q'), i % 31)));
    const Texts large = run(made);
    Texts expected;  // every line is in three documents and more
    std::set<std::string> seen;
    for (const GroupFile& file : made.files)
      for (const Document& one : file.documents) {
        std::string& left = expected.emplace_back();
        for_each_line(one.text, [&](std::string_view text) {
          if (text.size() < 200 || text.starts_with('o') || seen.insert(std::string(text)).second) left += text;
        });
      }
    CHECK(large == expected);
    made.memory_bytes = 1000;
    made.note_order = {6, 2, 0, 1, 5, 4, 3};
    CHECK(run(made) == large);
  }

  TEST_CASE("paragraphs: options are checked where they stand") {
    const auto refused = [](const std::string& options, const std::string& says) {
      const Caught error = caught([&] { group_step("paragraphs", options); });
      CHECK(error.code == 2);
      CHECK_MESSAGE(error.says(":1: " + says), error.text);
    };
    refused("min_chars = 0", "min_chars: got 0, expected at least 1");
    refused("min_documents = 1", "min_documents: got 1, expected at least 2");
    refused("max_lost = 1.5", "max_lost: got 1.5, expected a share from 0 to 1");
  }
}
