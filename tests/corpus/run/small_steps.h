// Steps small enough to be followed by hand: two that look at documents, two that group them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/cli/options.h"
#include "src/corpus/step.h"

namespace coppice::test {

/// `size`: drops texts of few bytes and of many digits.
struct SizeOptions {
  int64_t min_bytes = 4;
  int64_t max_digits = 3;
  template <class Field>
  void visit_fields(Field& field) {
    field("min_bytes", min_bytes, Mark::decides, "bytes of a text");
    field("max_digits", max_digits, Mark::decides, "digits of a text");
  }
};

class SizeStep : public DocumentStep {
 public:
  explicit SizeStep(SizeOptions options) : options_(options) {}
  std::vector<Rule> rules() const override {
    return {{.name = "bytes", .least = static_cast<double>(options_.min_bytes)},
            {.name = "digits", .most = static_cast<double>(options_.max_digits)}};
  }
  std::unique_ptr<DocumentLook> start() const override {
    struct Look : DocumentLook {
      bool look(Document& document, std::span<double> values, bool) override {
        values[0] = static_cast<double>(document.text.size());
        values[1] = static_cast<double>(
            std::ranges::count_if(document.text, [](unsigned char c) { return std::isdigit(c) != 0; }));
        return false;
      }
    };
    return std::make_unique<Look>();
  }

 private:
  SizeOptions options_;
};

/// `plain`: cuts digits out; drops what has more than `max_x` letters x.
struct PlainOptions {
  double max_x = 2;
  template <class Field>
  void visit_fields(Field& field) {
    field("max_x", max_x, Mark::decides, "letters x of a text");
  }
};

class PlainStep : public DocumentStep {
 public:
  explicit PlainStep(PlainOptions options) : options_(options) {}
  std::vector<Rule> rules() const override { return {{.name = "x", .most = options_.max_x}}; }
  std::unique_ptr<DocumentLook> start() const override {
    struct Look : DocumentLook {
      bool look(Document& document, std::span<double> values, bool) override {
        values[0] = static_cast<double>(std::ranges::count(document.text, 'x'));
        return std::erase_if(document.text, [](unsigned char c) { return std::isdigit(c) != 0; }) > 0;
      }
    };
    return std::make_unique<Look>();
  }

 private:
  PlainOptions options_;
};

/// `counted`: refuses a corpus of which more than `max_q` documents begin with q.
struct CountedOptions {
  int64_t max_q = 0;
  template <class Field>
  void visit_fields(Field& field) {
    field("max_q", max_q, Mark::decides, "documents that begin with q");
  }
};

class CountedStep : public DocumentStep {
 public:
  explicit CountedStep(CountedOptions options) : options_(options) {}
  std::vector<Rule> rules() const override { return {}; }
  std::unique_ptr<DocumentLook> start() const override {
    struct Look : DocumentLook {
      uint64_t documents = 0, of_q = 0;
      bool look(Document& document, std::span<double>, bool) override {
        ++documents;
        of_q += document.text.starts_with('q');
        return false;
      }
      void add_counts(Counts& counts) const override {
        counts["documents"] += documents;
        if (of_q > 0) counts["begin with q"] += of_q;
      }
    };
    return std::make_unique<Look>();
  }
  void finish(const Counts& totals) const override {
    const auto found = totals.find("begin with q");
    if (found != totals.end() && found->second > static_cast<uint64_t>(options_.max_q))
      throw UserError::bad_file("counted",
                                fmt::format("{} of {} documents begin with q", found->second, totals.at("documents")));
  }

 private:
  CountedOptions options_;
};

/// Notes a word of each document, and decides by part, a word being of the part of its first letter.
class WordStep : public GroupStep {
 public:
  std::unique_ptr<GroupNotes> note(const GroupPlace& place, uint32_t file) const override {
    struct Notes : GroupNotes {
      const WordStep* step;
      std::filesystem::path path;
      std::string lines;
      void add(const Document& document) override { lines += step->word_of(document) + "\n"; }
      void commit() override {
        make_folder(path.parent_path());
        write_file_atomically(path, lines);
      }
    };
    auto notes = std::make_unique<Notes>();
    notes->step = this;
    notes->path = place.folder / fmt::format("notes-{}", file);
    return notes;
  }
  uint32_t num_parts(const GroupPlace&) const override { return 3; }
  void reduce(const GroupPlace& place, uint32_t part) const override {
    std::map<std::string, std::vector<std::pair<uint32_t, uint32_t>>> places;  // in their order
    for (uint32_t file = 0; file < place.files.size(); ++file) {
      std::ifstream notes(place.folder / fmt::format("notes-{}", file));
      const std::vector<bool> left = place.left ? place.left(file) : std::vector<bool>();
      uint32_t number = 0;
      for (std::string word; std::getline(notes, word); ++number)
        if ((left.empty() || left[number]) && static_cast<unsigned char>(word[0]) % 3 == part)
          places[word].emplace_back(file, number);
    }
    std::string lines;
    for (const auto& [word, of] : places)
      for (const auto& [file, number, details] : gone(word, of))
        lines += fmt::format("{} {} {}\n", file, number, details);
    write_file_atomically(place.folder / fmt::format("part-{}", part), lines);
  }
  void settle(const GroupPlace& place) const override {
    std::string all;
    for (uint32_t part = 0; part < 3; ++part) all += read_file(place.folder / fmt::format("part-{}", part));
    write_file_atomically(place.folder / "gone", all);
  }
  std::unique_ptr<GroupDecisions> decide(const GroupPlace& place, uint32_t file) const override {
    struct Decisions : GroupDecisions {
      std::map<uint32_t, std::string> gone;
      uint32_t number = 0;
      bool look(Document&, std::span<double> values, std::string& details) override {
        const auto found = gone.find(number++);
        values[0] = found != gone.end();
        if (found != gone.end()) details = found->second;
        return false;
      }
      bool goes() override { return gone.contains(number++); }
    };
    auto decisions = std::make_unique<Decisions>();
    std::ifstream all(place.folder / "gone");
    for (std::string line; std::getline(all, line);) {
      std::istringstream words(line);
      uint32_t of = 0, number = 0;
      std::string details;
      words >> of >> number >> details;
      if (of == file) decisions->gone[number] = details;
    }
    return decisions;
  }

 protected:
  struct Gone {
    uint32_t file, number;
    std::string details;
  };
  virtual std::string word_of(const Document& document) const = 0;
  virtual std::vector<Gone> gone(const std::string& word,
                                 const std::vector<std::pair<uint32_t, uint32_t>>& places) const = 0;
};

/// `same`: of equal texts (without blanks) the first one stays.
class SameStep : public WordStep {
 public:
  std::vector<Rule> rules() const override { return {{.name = "copy", .most = 0}}; }

 protected:
  std::string word_of(const Document& document) const override {
    std::string word = document.text;
    std::ranges::replace_if(
        word, [](unsigned char c) { return std::isspace(c) != 0; }, '_');
    return word;
  }
  std::vector<Gone> gone(const std::string&, const std::vector<std::pair<uint32_t, uint32_t>>& places) const override {
    std::vector<Gone> list;
    for (size_t i = 1; i < places.size(); ++i)
      list.push_back(
          {places[i].first, places[i].second, fmt::format("\"kept\":\"{}:{}\"", places[0].first, places[0].second)});
    return list;
  }
};

/// `common`: documents go whose first letter opens `at_least` documents or more.
struct CommonOptions {
  int64_t at_least = 3;
  template <class Field>
  void visit_fields(Field& field) {
    field("at_least", at_least, Mark::decides, "documents of a first letter");
  }
};

class CommonStep : public WordStep {
 public:
  explicit CommonStep(CommonOptions options) : options_(options) {}
  std::vector<Rule> rules() const override { return {{.name = "letter", .most = 0}}; }

 protected:
  std::string word_of(const Document& document) const override { return document.text.substr(0, 1); }
  std::vector<Gone> gone(const std::string&, const std::vector<std::pair<uint32_t, uint32_t>>& places) const override {
    std::vector<Gone> list;
    if (static_cast<int64_t>(places.size()) >= options_.at_least)
      for (const auto& [file, number] : places)
        list.push_back({file, number, fmt::format("\"documents\":{}", places.size())});
    return list;
  }

 private:
  CommonOptions options_;
};

struct NoOptions {
  template <class Field>
  void visit_fields(Field&) {}
};

template <class MadeStep, class Options>
std::shared_ptr<const Step> read_step(OptionTable& table) {
  Options options;
  table.read(options);
  return std::make_shared<MadeStep>(options);
}
inline std::shared_ptr<const Step> read_same(OptionTable&) { return std::make_shared<SameStep>(); }

inline constexpr StepKind kSize = {"size", "", "", step_options<SizeOptions>, read_step<SizeStep, SizeOptions>};
inline constexpr StepKind kPlain = {"plain", "", "", step_options<PlainOptions>, read_step<PlainStep, PlainOptions>};
inline constexpr StepKind kSame = {"same", "", "", step_options<NoOptions>, read_same};
inline constexpr StepKind kCommon = {"common", "", "", step_options<CommonOptions>,
                                     read_step<CommonStep, CommonOptions>};
inline constexpr StepKind kCounted = {"counted", "", "", step_options<CountedOptions>,
                                      read_step<CountedStep, CountedOptions>};
/// The row `pii` of public sources.
inline constexpr StepKind kPii = {"pii", "", "", step_options<PlainOptions>, read_step<PlainStep, PlainOptions>};
inline constexpr const StepKind* kSmallSteps[] = {&kSize, &kPlain, &kSame, &kCommon, &kPii, &kCounted};

}  // namespace coppice::test
