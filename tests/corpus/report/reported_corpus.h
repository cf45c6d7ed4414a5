// A corpus of three sources that every question about corpora can be asked, its values known by hand.
//   quality.char_dup_ratio   a: 0, .1, .2, .5   b: 0, 0, .3   c: 0, 0, .4, with .15 as the threshold
//   dedup                    the second of b is the first of a
//   decontaminate            the first of c holds an item
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/corpus/report/complete_corpus.h"
#include "src/corpus/run/run_corpus.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

inline constexpr const char* kHostile = "<script>alert('1')</script><img src=\"http://evil.example/x\">&amp;";
inline constexpr const char* kItem =
    "zulu yankee xray whiskey victor uniform tango sierra romeo quebec papa oscar november mike lima";

/// Lines of 40 characters whose words stand nowhere else, and `copies` of ten that are the first again.
class Prose {
 public:
  explicit Prose(int first_word = 0) : word_(first_word) {}
  std::string text(int copies, const std::string& instead_of_second = "") {
    std::vector<std::string> lines;
    for (int i = 0; i < 10 - copies; ++i) lines.push_back(line());
    if (!instead_of_second.empty()) lines[1] = instead_of_second;
    for (int i = 0; i < copies; ++i) lines.push_back(lines[0]);
    std::string text;
    for (const std::string& of : lines) text += (text.empty() ? "" : "\n") + of;
    return text;
  }

 private:
  std::string line() {
    std::string words;
    for (int i = 0; i < 8; ++i, ++word_) {
      if (i > 0) words += ' ';
      for (int k = 0, rest = word_; k < 4; ++k, rest /= 26) words += static_cast<char>('a' + rest % 26);
    }
    return words + ".";
  }
  int word_;
};

struct ReportedCorpus {
  ScratchFolder scratch{"reported"};

  ReportedCorpus() {
    Prose prose;
    const std::string first = prose.text(0);
    write("a", {{"a0", first}, {"a1", prose.text(1)}, {"a2", prose.text(2)}, {"a5", prose.text(5)}});
    write("b", {{"b0", prose.text(0)}, {"copy", first}, {"b3", prose.text(3)}});
    const std::string hostile = fmt::format("{} write to jane.doe@company.org.", kHostile);
    write("c", {{"held", prose.text(0, fmt::format("{}.", kItem))},
                {"c0", prose.text(0)},
                {fmt::format("{}c4", kHostile), prose.text(4, hostile)}});
    spill(scratch / "bench/quiz.jsonl", nlohmann::json({{"text", kItem}}).dump() + "\n");
  }
  void write(const std::string& source, const std::vector<std::pair<std::string, std::string>>& documents) const {
    std::string lines;
    for (const auto& [id, text] : documents) lines += nlohmann::json({{"id", id}, {"text", text}}).dump() + "\n";
    spill(scratch / ("in/" + source + "/1.jsonl"), lines);
  }

  CompleteCorpus run(const std::string& out, double char_dup_ratio = 0.15, const std::string& more = "") const {
    std::string sources;
    for (const char* name : {"a", "b", "c"})
      sources += fmt::format("  {{ name = \"{0}\", path = \"{1}/in/{0}\" }},\n", name, scratch.path.string());
    spill(scratch / "corpus.toml",
          fmt::format(
              "[data]\n{}\nsource = [\n{}]\nstep = [\n"
              "  {{ kind = \"quality\", rules = [\"fineweb\"], words = \"whitespace\", char_dup_ratio = {} }},\n"
              "  {{ kind = \"dedup\" }},\n  {{ kind = \"decontaminate\", benchmarks = [\"{}/bench/*.jsonl\"] }},\n]\n",
              more, sources, char_dup_ratio, scratch.path.string()));
    run_corpus(load_corpus(scratch / "corpus.toml", {}, {}), {.out = scratch / out});
    return open_complete_corpus(scratch / out);
  }
};

}  // namespace coppice::test
