#include "src/corpus/report/tune.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

#include "src/base/errors.h"
#include "src/corpus/report/text_table.h"
#include "src/corpus/report/value_file.h"

namespace coppice {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();
constexpr const char* kFlag = "--set";

Rule one_sided(Side side, double threshold) {
  return side == Side::least ? Rule{.name = {}, .least = threshold} : Rule{.name = {}, .most = threshold};
}

double parse_limit(const std::string& text, const std::string& change) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    throw UserError::recipe(
        kFlag, fmt::format("got '{}', expected step.rule=number, or step.rule=least..most", printable(change)));
  return value;
}

}  // namespace

void ThresholdRow::add(std::span<const float> values) {
  for (const float value : values) measured += !std::isnan(value);
  const auto count = [&](OtherThreshold& of) {
    const Rule rule_of = one_sided(side, of.threshold);
    for (const float value : values) of.dropped += drops_stored(rule_of, value);
  };
  count(now);
  for (OtherThreshold& of : others) count(of);
}

std::vector<ThresholdRow> threshold_rows(const ToldStep& step, const ToldRule& rule) {
  std::vector<ThresholdRow> rows;
  if (!rule.has_threshold()) return rows;
  for (const auto& [side, threshold] : {std::pair(Side::least, rule.rule.least), {Side::most, rule.rule.most}}) {
    if (!std::isfinite(threshold)) continue;
    ThresholdRow& row = rows.emplace_back(
        ThresholdRow{.step = step.name, .rule = rule.rule.name, .side = side, .now = {.threshold = threshold}});
    for (size_t i = 0; i < kOtherThresholds.size(); ++i) row.others[i].threshold = kOtherThresholds[i] * threshold;
  }
  return rows;
}

std::vector<ThresholdRow> threshold_rows(const CompleteCorpus& corpus, const std::vector<SourceFile>& files) {
  check_has_values(corpus);
  std::vector<ThresholdRow> rows;
  for (const ToldStep& step : corpus.steps)
    for (const ToldRule& rule : step.rules) std::ranges::move(threshold_rows(step, rule), std::back_inserter(rows));
  for (const SourceFile& file : files) {
    const ValueFile values(corpus, file);
    for (ThresholdRow& row : rows) row.add(values.column(row.step, row.rule));
  }
  return rows;
}

std::string threshold_table(const std::vector<ThresholdRow>& rows) {
  std::vector<std::string> header = {"step", "rule", "drops", "measured", "removes"};
  for (const double factor : kOtherThresholds) header.push_back(fmt::format("x {}", factor));
  std::vector<std::vector<std::string>> cells;
  for (const ThresholdRow& row : rows) {
    std::vector<std::string>& line = cells.emplace_back();
    line = {row.step, row.rule, limits_text(one_sided(row.side, row.now.threshold)), fmt::format("{}", row.measured),
            percent_text(row.now.dropped, row.measured)};
    for (const OtherThreshold& of : row.others) line.push_back(percent_text(of.dropped, row.measured));
  }
  return text_table(header, cells, 3) +
         "\nShares of the documents that the rule has measured, whatever other rules say. x 0.5: at half the "
         "threshold.\n";
}

ThresholdChange parse_change(const CompleteCorpus& corpus, const std::string& text) {
  const size_t equals = text.rfind('=');
  const std::string name = text.substr(0, equals), value = equals == std::string::npos ? "" : text.substr(equals + 1);
  // Both names may hold dots: the longest step that fits.
  const ToldStep* step = nullptr;
  for (const ToldStep& of : corpus.steps)
    if (name.starts_with(of.name + ".") && (step == nullptr || of.name.size() > step->name.size())) step = &of;
  if (step == nullptr) step = &corpus.step(name.substr(0, name.find('.')), kFlag);
  const std::string rule_name = name.size() > step->name.size() ? name.substr(step->name.size() + 1) : "";
  const ToldRule& told = corpus.rule(*step, rule_name, kFlag);
  const bool has_least = std::isfinite(told.rule.least), has_most = std::isfinite(told.rule.most);
  if (!has_least && !has_most) throw UserError::recipe(kFlag, fmt::format("the rule '{}' has no threshold", name));
  ThresholdChange change{.step = step->name, .before = told.rule, .after = told.rule};
  if (const size_t dots = value.find(".."); dots != std::string::npos) {
    const std::string least = value.substr(0, dots), most = value.substr(dots + 2);
    change.after.least = least.empty() ? -kNoLimit : parse_limit(least, text);
    change.after.most = most.empty() ? kNoLimit : parse_limit(most, text);
  } else if (has_least && has_most) {
    throw UserError::recipe(kFlag, fmt::format("got '{}', but the rule drops {}; expected {}=least..most",
                                               printable(text), limits_text(told.rule), name));
  } else {
    (has_least ? change.after.least : change.after.most) = parse_limit(value, text);
  }
  return change;
}

TuneOutcome tune(const CompleteCorpus& corpus, const std::vector<ThresholdChange>& changes) {
  check_has_values(corpus);
  TuneOutcome outcome;
  for (const ThresholdChange& change : changes) outcome.rules.push_back({.change = change});
  for (const SourceFile& file : corpus.files) {
    const ValueFile values(corpus, file);
    std::vector<bool> before(values.documents()), after(values.documents());
    for (const ToldStep& step : corpus.steps)
      for (const ToldRule& told : step.rules) {
        ChangedRule* changed = nullptr;  // the last word counts
        for (ChangedRule& of : outcome.rules)
          if (of.change.step == step.name && of.change.before.name == told.rule.name) changed = &of;
        const std::vector<float> column = values.column(step.name, told.rule.name);
        for (size_t i = 0; i < column.size(); ++i) {
          const bool drops = drops_stored(told.rule, column[i]);
          const bool would = changed != nullptr ? drops_stored(changed->change.after, column[i]) : drops;
          if (drops) before[i] = true;
          if (would) after[i] = true;
          if (changed == nullptr) continue;
          changed->measured += !std::isnan(column[i]);
          changed->before += drops;
          changed->after += would;
        }
      }
    outcome.documents += values.documents();
    for (size_t i = 0; i < before.size(); ++i) {
      outcome.before += before[i];
      outcome.after += after[i];
      outcome.come_back += before[i] && !after[i];
      outcome.go_too += !before[i] && after[i];
    }
  }
  return outcome;
}

std::string tune_text(const TuneOutcome& outcome) {
  std::vector<std::vector<std::string>> rows;
  for (const ChangedRule& of : outcome.rules)
    rows.push_back({of.change.step, of.change.before.name, limits_text(of.change.before), limits_text(of.change.after),
                    fmt::format("{}", of.measured), fmt::format("{}", of.before), percent_text(of.before, of.measured),
                    fmt::format("{}", of.after), percent_text(of.after, of.measured)});
  std::string text = text_table({"step", "rule", "drops", "then", "measured", "removes", "", "then", ""}, rows, 4);
  text += fmt::format(
      "\nOf {} documents with values, the rules let {} go ({}), and would {} ({}): {} come back, {} go in addition.\n",
      outcome.documents, outcome.before, percent_text(outcome.before, outcome.documents), outcome.after,
      percent_text(outcome.after, outcome.documents), outcome.come_back, outcome.go_too);
  return text + "What comes back has yet to pass the group steps, which have not seen it.\n";
}

}  // namespace coppice
