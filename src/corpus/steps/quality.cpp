// quality: rules that measure a document and let it go beyond a limit; two of them also take lines out.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/quality/c4.h"
#include "src/corpus/quality/dclm_lines.h"
#include "src/corpus/quality/document_measures.h"
#include "src/corpus/quality/quality_rules.h"
#include "src/corpus/quality/url_lists.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

struct QualityOptions {
  std::vector<std::string> rules;  // of quality_rule_sets()
  std::string words = "auto";
  bool terminal = true;
  int64_t longest_word = C4Options{}.longest_word;
  int64_t fewest_line_words = C4Options{}.fewest_words;
  int64_t short_line_length = 30;
  std::string url_domains, url_words;
  std::map<std::string, double> limits;  // by the option that sets them

  QualityOptions() {
    for (const QualityRuleSet& set : quality_rule_sets()) {
      if (set.by_default) rules.push_back(set.name);
      for (const QualityRule& rule : set.rules) {
        if (rule.least_option != nullptr) limits[rule.least_option] = rule.least;
        if (rule.most_option != nullptr) limits[rule.most_option] = rule.most;
      }
    }
  }

  template <class Field>
  void visit_fields(Field& field) {
    field("rules", rules, Mark::decides,
          "in the order in which they drop, of gopher_repetition, gopher_quality, c4 (takes lines out), fineweb, "
          "dclm_lines (takes lines out), ratios, url");
    field("words", words, Mark::decides, "what a word is: auto, english, peeled or whitespace");
    field("terminal", terminal, Mark::decides,
          "c4: a line without . ? ! \" ' at its end goes; FineWeb ran it with false");
    field("longest_word", longest_word, Mark::decides, "c4: a line with a word of more characters goes");
    field("fewest_line_words", fewest_line_words, Mark::decides, "c4: a line of fewer words goes");
    field("short_line_length", short_line_length, Mark::decides, "fineweb: characters of a line that is short at most");
    field("url_domains", url_domains, Mark::place, "url: a file of domains, one a line");
    field("url_words", url_words, Mark::place, "url: a file of words of addresses, one a line");
    for (const QualityRuleSet& set : quality_rule_sets())
      for (const QualityRule& rule : set.rules) {
        if (rule.least_option != nullptr)
          field(rule.least_option, limits[rule.least_option], Mark::decides, rule.about);
        if (rule.most_option != nullptr) field(rule.most_option, limits[rule.most_option], Mark::decides, rule.about);
      }
  }
};

/// What a thread needs of the options.
struct QualityPlan {
  std::vector<QualityRuleSet> sets;  // in the order of `rules`
  std::vector<Rule> rules;           // `empty`, then those of the sets
  WordRule words = WordRule::automatic;
  C4Options c4;
  int64_t short_line_length = 0;
  std::shared_ptr<const UrlLists> urls;
};

class QualityLook : public DocumentLook {
 public:
  explicit QualityLook(const QualityPlan& plan) : plan_(plan), text_(plan.words), c4_(plan.c4) {}

  bool look(Document& document, std::span<double> values, bool all) override {
    values[0] = skip_white_space(document.text.data(), document.text.data() + document.text.size()) ==
                document.text.data() + document.text.size();
    if (values[0] > 0) return false;
    const std::string language = plan_.words == WordRule::automatic ? metadata_text(document, "language") : "";
    text_.set(document.text, language);
    bool is_changed = false, is_dropped = false;
    size_t first = 1;
    for (const QualityRuleSet& set : plan_.sets) {
      const std::span<double> measured = values.subspan(first, set.rules.size());
      const std::string* const kept = measure(set.set, document, measured, all);
      for (size_t i = 0; i < measured.size(); ++i) is_dropped |= plan_.rules[first + i].drops(measured[i]);
      if (is_dropped && !all) return is_changed;
      // With `all` also of a document that goes: the sets behind measure what they would see if it stayed.
      if (kept != nullptr && *kept != document.text) {
        document.text = *kept;
        const bool is_counted = set.set == QualitySet::c4;
        text_.set(document.text, language, is_counted ? std::optional(c4_.kept_words()) : std::nullopt);
        is_changed = true;
      }
      if (document.text.empty()) {  // no line was left, and nothing is to be measured
        if (!is_dropped) values[0] = 1;
        break;
      }
      first += set.rules.size();
    }
    return is_changed;
  }

 private:
  /// The text that stays of the document, for rules that take lines out.
  const std::string* measure(QualitySet set, const Document& document, std::span<double> values, bool all) {
    switch (set) {
      case QualitySet::gopher_repetition:
        repetition_.measure(text_, values);
        break;
      case QualitySet::gopher_quality:
        measure_gopher_quality(text_, values);
        break;
      case QualitySet::fineweb:
        measure_fineweb(text_, plan_.short_line_length, repetition_, values);
        break;
      case QualitySet::ratios:
        measure_ratios(text_, values);
        break;
      case QualitySet::url:
        plan_.urls->measure(member_text(document, "url"), values);
        break;
      case QualitySet::c4:
        c4_.measure(text_, values, all);
        return std::isnan(values[2]) && !all ? nullptr : &c4_.kept_text();
      case QualitySet::dclm_lines:
        return measure_dclm_lines(document.text, values, kept_lines_) ? &kept_lines_ : nullptr;
    }
    return nullptr;
  }

  const QualityPlan& plan_;
  QualityText text_;
  Repetition repetition_;
  C4 c4_;
  std::string kept_lines_;
};

class QualityStep : public DocumentStep {
 public:
  explicit QualityStep(QualityPlan plan) : plan_(std::move(plan)) {}
  std::vector<Rule> rules() const override { return plan_.rules; }
  /// Addresses alone are told of pages, too.
  Pages pages() const override {
    const auto is_url = [](const QualityRuleSet& set) { return set.set == QualitySet::url; };
    return std::ranges::all_of(plan_.sets, is_url) ? Pages::takes : Pages::refuses;
  }
  std::vector<std::string> inputs() const override {
    return plan_.urls == nullptr ? std::vector<std::string>{} : plan_.urls->inputs();
  }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<QualityLook>(plan_); }

 private:
  QualityPlan plan_;
};

const QualityRuleSet& find_set(const std::string& name, const std::string& where) {
  std::vector<std::string> known;
  for (const QualityRuleSet& set : quality_rule_sets()) {
    if (name == set.name) return set;
    known.push_back(set.name);
  }
  throw UserError::recipe(where, fmt::format("rules: got '{}', expected some of {}", name, fmt::join(known, ", ")));
}

std::shared_ptr<const Step> read_quality(OptionTable& table) {
  QualityOptions options;
  table.read(options);
  QualityPlan plan{.c4 = {.terminal = options.terminal,
                          .longest_word = options.longest_word,
                          .fewest_words = options.fewest_line_words},
                   .short_line_length = options.short_line_length};
  const std::optional<WordRule> words = find_word_rule(options.words);
  if (!words)
    throw UserError::recipe(table.where("words"), fmt::format("words: got '{}', expected auto, english, peeled or "
                                                              "whitespace",
                                                              options.words));
  plan.words = *words;
  if (options.rules.empty()) throw UserError::recipe(table.where("rules"), "rules: got none, expected at least one");
  plan.rules.push_back({.name = "empty", .most = 0});
  for (const std::string& name : options.rules) {
    const QualityRuleSet& set = find_set(name, table.where("rules"));
    if (std::ranges::count(options.rules, name) > 1)
      throw UserError::recipe(table.where("rules"), fmt::format("rules: got '{}' twice, expected it once", name));
    plan.sets.push_back(set);
    for (const QualityRule& rule : set.rules) {
      const double least = rule.least_option != nullptr ? options.limits[rule.least_option] : rule.least;
      const double most = rule.most_option != nullptr ? options.limits[rule.most_option] : rule.most;
      if (std::isnan(least) || std::isnan(most) || least > most)
        throw UserError::recipe(
            table.where(), fmt::format("{}: got {} to {}, expected limits in ascending order", rule.name, least, most));
      plan.rules.push_back({.name = rule.name, .least = least, .most = most});
    }
    if (set.set != QualitySet::url) continue;
    if (options.url_domains.empty() && options.url_words.empty())
      throw UserError::recipe(table.where("rules"),
                              "rules: got 'url' without url_domains and url_words, expected at least one list");
    plan.urls = std::make_shared<UrlLists>(options.url_domains, options.url_words);
  }
  return std::make_shared<QualityStep>(std::move(plan));
}

}  // namespace

extern const StepKind kQualityStep;
const StepKind kQualityStep = {
    .kind = "quality",
    .about = "lets go what is no prose: rules of Gopher, C4 and FineWeb with their limits, by default",
    .example = "coppice data quality pages -o kept --char-dup-ratio 0.02",
    .options = step_options<QualityOptions>,
    .read = read_quality,
};

}  // namespace coppice
