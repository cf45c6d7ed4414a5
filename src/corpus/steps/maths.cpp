// maths: keeps texts with mathematics, by marks in the page's markup, symbols in the text and labels of domains. It
// stands twice in a corpus of pages: before extract it counts the marks of a page and notes them as
// metadata.maths_templates; behind it, it decides. A text that was no page before has no marks.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/cli/options.h"
#include "src/corpus/maths/domains.h"
#include "src/corpus/maths/marks.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"
#include "src/text/text_encoding.h"

namespace coppice {
namespace {

constexpr const char* kTemplatesName = "maths_templates";
constexpr const char* kSymbolsName = "maths_symbols";
constexpr size_t kNamedLabels = 5;  // in a warning

struct MathsOptions {
  std::string templates, symbols;
  double min_templates = 1;
  double min_symbols = 5, symbol_rate = 2;
  double without_templates = 2;
  std::string domains;
  std::vector<std::string> keep = {"maths"};
  std::string score;
  double other_score = 0.5;

  template <class Field>
  void visit_fields(Field& field) {
    field("templates", templates, Mark::place,
          "file of strings that pages with mathematics hold, one a line; empty = built in");
    field("symbols", symbols, Mark::place, "file of symbols, \\name or a character a line; empty = built in");
    field("min_templates", min_templates, Mark::decides, "different strings of those in a page at least");
    field("min_symbols", min_symbols, Mark::decides, "symbols of a text at least");
    field("symbol_rate", symbol_rate, Mark::decides, "symbols per 1,000 characters at least");
    field("without_templates", without_templates, Mark::decides,
          "how many times as many symbols, by both counts, make up for missing strings");
    field("domains", domains, Mark::place,
          "file of lines domain<TAB>label, as coppice data domains prints them; empty = every domain");
    field("keep", keep, Mark::decides, "labels whose documents stay");
    field("score", score, Mark::decides,
          "name of the score by which documents of domains labelled `other`, or not at "
          "all, stay; empty = they go");
    field("other_score", other_score, Mark::decides, "that score at least");
  }
};

enum Place : size_t { kDomain, kOtherScore, kTemplates, kSymbols, kSymbolRate, kNumRules };

std::vector<std::string> entries_of(const std::string& file, std::string_view built_in) {
  return list_entries(file.empty() ? std::string(built_in) : read_file(file));
}

class MathsStep : public DocumentStep {
 public:
  explicit MathsStep(OptionTable& table)
      : options_(read(table)),
        where_(table.where()),
        finder_(entries_of(options_.templates, kMathsTemplates), options_.templates),
        counter_(entries_of(options_.symbols, kMathsSymbols), options_.symbols) {
    if (!options_.domains.empty()) read_labels(table);
    if (options_.without_templates < 1)
      throw UserError::recipe(
          table.where("without_templates"),
          fmt::format("without_templates: got {}, expected at least 1", options_.without_templates));
    if (options_.domains.empty() && !options_.score.empty())
      throw UserError::recipe(table.where("score"),
                              "score: got a score for unlabelled domains, expected `domains` beside "
                              "it; give the file of labels");
  }

  std::vector<Rule> rules() const override {
    std::vector<Rule> rules(kNumRules);
    rules[kDomain] = {.name = "domain", .most = 0};
    rules[kOtherScore] = {.name = "other_score", .least = options_.other_score};
    rules[kTemplates] = {.name = "templates", .least = options_.min_templates};
    rules[kSymbols] = {.name = "symbols", .least = options_.min_symbols};
    rules[kSymbolRate] = {.name = "symbol_rate", .least = options_.symbol_rate};
    return rules;
  }

  std::vector<std::string> inputs() const override {
    std::vector<std::string> hashes;
    for (const std::string& file : {options_.templates, options_.symbols, options_.domains})
      hashes.push_back(file.empty() ? "" : sha256_file(file));
    return hashes;
  }

  Pages pages() const override { return Pages::takes; }
  bool reads_markup() const override { return options_.min_templates > 0; }
  std::unique_ptr<DocumentLook> start() const override;

  bool look(Document& document, std::span<double> values) const {
    if (!options_.domains.empty()) look_at_domain(document, values);
    if (document.is_page) {
      set_metadata(document, kTemplatesName, finder_.find(document.text).size());
      return true;
    }
    const std::optional<Json> noted = find_metadata(document, kTemplatesName);
    const double templates = noted && noted->is_number() ? noted->get<double>() : 0;
    const auto symbols = static_cast<double>(counter_.count(document.text));
    const auto characters = static_cast<double>(count_code_points(document.text));
    const double rate = characters == 0 ? 0 : 1000 * symbols / characters;
    values[kSymbols] = symbols;
    values[kSymbolRate] = rate;
    // Many symbols make up for markup: the rule is not defined then.
    if (symbols < options_.without_templates * options_.min_symbols ||
        rate < options_.without_templates * options_.symbol_rate)
      values[kTemplates] = templates;
    set_metadata(document, kSymbolsName, static_cast<uint64_t>(symbols));
    return true;
  }

 private:
  static MathsOptions read(OptionTable& table) {
    MathsOptions options;
    table.read(options);
    return options;
  }

  /// A label that `keep` does not name is right for what shall go, and a slip otherwise: it is said.
  void read_labels(const OptionTable& table) {
    labels_ = DomainLabels(options_.domains);
    std::vector<std::string> not_kept;
    for (const std::string& label : labels_.labels())
      if (label != "other" && std::ranges::find(options_.keep, label) == options_.keep.end())
        not_kept.push_back(fmt::format("'{}'", printable(label)));
    if (not_kept.empty()) return;
    const size_t named = std::min(not_kept.size(), kNamedLabels);
    log_warning(
        fmt::format("{}: domains: {} labels of {} are not in keep, so that the documents of their domains go: "
                    "{}{}",
                    table.where("domains"), not_kept.size(), options_.domains,
                    fmt::join(not_kept.begin(), not_kept.begin() + static_cast<std::ptrdiff_t>(named), ", "),
                    named < not_kept.size() ? ", ..." : ""));
  }

  void look_at_domain(const Document& document, std::span<double> values) const {
    const std::string& label = labels_.of(host_of(member_text(document, "url")));
    const bool kept = std::ranges::find(options_.keep, label) != options_.keep.end();
    const bool by_score = !kept && label == "other" && !options_.score.empty();
    values[kDomain] = kept || by_score ? 0 : 1;
    if (!by_score) return;
    const auto score = std::ranges::find(document.scores, options_.score, &Score::name);
    if (score != document.scores.end()) {
      values[kOtherScore] = score->value;
    } else if (!document.is_page) {  // pages are scored when they are texts
      throw UserError::recipe(where_, fmt::format("score: got a document ({}) without the score '{}'; let a step that "
                                                  "gives it stand before this one",
                                                  printable(document.id), printable(options_.score)));
    }
  }

  MathsOptions options_;
  std::string where_;
  StringFinder finder_;
  SymbolCounter counter_;
  DomainLabels labels_;
};

class MathsLook : public DocumentLook {
 public:
  explicit MathsLook(const MathsStep& step) : step_(step) {}
  bool look(Document& document, std::span<double> values, bool) override { return step_.look(document, values); }

 private:
  const MathsStep& step_;
};

std::unique_ptr<DocumentLook> MathsStep::start() const { return std::make_unique<MathsLook>(*this); }

}  // namespace

extern const StepKind kMathsStep;
const StepKind kMathsStep = {
    "maths",
    "texts with mathematics, by their pages' markup, their symbols and their domains",
    "coppice data maths pages.jsonl.zst -o maths",
    step_options<MathsOptions>,
    [](OptionTable& table) -> std::shared_ptr<const Step> { return std::make_shared<MathsStep>(table); },
};

}  // namespace coppice
