// Tables, verdict and texts of an ablation; its drawing is in ablation_picture.cpp.
#include "recipes/report/ablation_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "recipes/report/ablation_differences.h"
#include "recipes/report/paired_test.h"
#include "recipes/report/report_page.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr const char* kNone = "\u2013";
constexpr double kLevel = 0.05;  // of the verdict's "differs"

struct CostColumn {
  const char* key;
  double ArmCost::*of;
};
constexpr CostColumn kCosts[] = {{"tokens", &ArmCost::tokens},        {"tokens_with_source", &ArmCost::all_tokens},
                                 {"flops", &ArmCost::flops},          {"flops_with_source", &ArmCost::all_flops},
                                 {"seconds", &ArmCost::seconds},      {"seconds_with_source", &ArmCost::all_seconds},
                                 {"peak_bytes", &ArmCost::peak_bytes}};

std::vector<double> costs_of(const ReportArm& arm, double ArmCost::*cost) {
  std::vector<double> values;
  for (const ArmCost& of_seed : arm.costs) values.push_back(of_seed.*cost);
  return values;
}

std::vector<double> domain_values(const ReportArm& arm, const std::string& domain, double ReportScore::*measure) {
  std::vector<double> values;
  for (const ReportModel& model : arm.models)
    values.push_back(model.domains.contains(domain) ? model.domains.at(domain).*measure : kAbsent);
  return values;
}

std::string spread_text(const Spread& spread, bool share) {
  if (spread.n == 0) return kNone;
  const double factor = share ? 100 : 1;
  const int decimals = share ? 1 : 3;
  const std::string mean = fmt::format("{:.{}f}{}", factor * spread.mean, decimals, share ? "%" : "");
  return spread.n < 2 ? mean : fmt::format("{} \u00b1 {:.{}f}", mean, factor * spread.sd, decimals);
}

std::string p_text(double p) { return std::isnan(p) ? "p -" : p < 0.001 ? "p < 0.001" : fmt::format("p {:.3f}", p); }

std::string difference_text(const PairedTest& test, double corrected_p, bool share) {
  if (test.n == 0) return kNone;
  return fmt::format("{:+.{}f} ({})", (share ? 100 : 1) * test.mean, share ? 1 : 3, p_text(corrected_p));
}

std::string arm_name(const ReportArm& arm) { return arm.is_reference() ? arm.name + " (reference)" : arm.name; }

/// The first model that is there: size and tokens are the same under every seed.
const ReportModel& some_model(const ReportArm& arm) {
  const auto found = std::ranges::find_if(arm.models, [](const ReportModel& model) { return !model.name.empty(); });
  return found == arm.models.end() ? arm.models.front() : *found;
}

/// What the models were scored on.
const char* text_of(const Comparison& comparison) {
  const bool tunes = std::ranges::any_of(
      comparison.arms, [](const ReportArm& arm) { return std::ranges::any_of(arm.models, is_on_tuning_text); });
  return tunes ? "tuning" : "held-out";
}

ReportTable quality_table(const AblationReport& report, const Comparison& comparison) {
  ReportTable table{
      .section = ReportSection::models,
      .title = "Quality",
      .note = fmt::format(
          "Mean over seeds \u00b1 sample standard deviation. Loss: cross-entropy on the true next token in nats a "
          "token over the {} text, accuracy of the model's own first "
          "choice, agreement of it with the teacher's; tasks: mean accuracy over the multiple-choice tasks. A model "
          "trained on top-1 teacher labels "
          "looks worse by loss than by accuracy, by design; at fitted T its sharpness is set right by one temperature, "
          "fitted on the other half of the text. ECE: expected calibration error; copying: accuracy on repeated random "
          "tokens. Tokens: since the cut, or since fresh weights.{}",
          text_of(comparison),
          report.shared.empty()
              ? ""
              : fmt::format(" Shared by all seeds: {}; the spread is that of everything else.", report.shared)),
      .header = {"arm", "seeds", "parameters", "tokens", "tokens a parameter"},
      .is_text = {true}};
  for (const AblationMeasure& measure : ablation_measures()) table.header.push_back(measure.title);
  table.is_text.resize(table.header.size(), false);
  for (const ReportArm& arm : comparison.arms) {
    const ReportModel& model = some_model(arm);
    std::vector<std::string> row = {
        arm_name(arm), std::to_string(spread_of(values_of(arm, &ReportScore::loss)).n),
        count_text(static_cast<double>(model.parameters)), count_text(model.training_tokens),
        model.parameters > 0 ? fixed_text(model.training_tokens / static_cast<double>(model.parameters), 2) : kNone};
    for (const AblationMeasure& measure : ablation_measures())
      row.push_back(spread_text(spread_of(values_of(arm, measure.of)), measure.share));
    table.rows.push_back(std::move(row));
  }
  return table;
}

ReportTable difference_table(const Comparison& comparison) {
  ReportTable table{.section = ReportSection::models,
                    .title = "Difference to the reference",
                    .note =
                        "Mean over seeds of arm minus reference, both under the same seed, in nats, bits and "
                        "percentage points. p: two-sided, of Student's paired t-test that the mean difference is 0, "
                        "after Holm's correction for the number of tests in its column. It knows only the seeds that "
                        "were run, on this text and this source. An arm whose reference has one of its own is held "
                        "against both.",
                    .header = {"arm", "against"},
                    .is_text = {true, true}};
  for (const AblationMeasure& measure : ablation_measures()) table.header.push_back(measure.title);
  table.is_text.resize(table.header.size(), false);
  for (const ArmDifference& difference : differences_of(comparison)) {
    std::vector<std::string> row = {difference.arm->name, difference.reference->name};
    for (size_t m = 0; m < ablation_measures().size(); ++m)
      row.push_back(difference_text(difference.tests[m], difference.corrected_p[m], ablation_measures()[m].share));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::set<std::string> domains_of(const Comparison& comparison) {
  std::set<std::string> domains;
  for (const ReportArm& arm : comparison.arms)
    for (const ReportModel& model : arm.models)
      for (const auto& [name, score] : model.domains) domains.insert(name);
  return domains;
}

ReportTable domain_table(const Comparison& comparison) {
  ReportTable table{.section = ReportSection::models,
                    .title = "Bits a byte by domain",
                    .note = "",
                    .header = {"arm", "all"},
                    .is_text = {true, false}};
  const std::set<std::string> domains = domains_of(comparison);
  table.header.insert(table.header.end(), domains.begin(), domains.end());
  table.is_text.resize(table.header.size(), false);
  for (const ReportArm& arm : comparison.arms) {
    std::vector<std::string> row = {arm_name(arm),
                                    spread_text(spread_of(values_of(arm, &ReportScore::bits_per_byte)), false)};
    for (const std::string& domain : domains)
      row.push_back(spread_text(spread_of(domain_values(arm, domain, &ReportScore::bits_per_byte)), false));
    table.rows.push_back(std::move(row));
  }
  return table;
}

ReportTable cost_table_of(const Comparison& comparison) {
  ReportTable table{.section = ReportSection::costs,
                    .title = "Cost",
                    .note =
                        "Mean over seeds of the stages that the model descends from: masks or another choice of "
                        "channels, labels, training. The source is "
                        "every train stage that starts [model.source] from fresh "
                        "weights; 'with the source' counts it whole in every arm. Tokens are those trained on; FLOPs "
                        "are formulas, labels among them; "
                        "evaluation counts nowhere. Peak memory: the largest resident "
                        "size of a stage, the source's left out.",
                    .header = {"arm", "tokens", "with the source", "FLOPs", "with the source", "time",
                               "with the source", "peak memory"},
                    .is_text = {true, false, false, false, false, false, false, false}};
  for (const ReportArm& arm : comparison.arms) {
    const auto mean = [&](double ArmCost::*cost) { return spread_of(costs_of(arm, cost)).mean; };
    table.rows.push_back({arm_name(arm), count_text(mean(&ArmCost::tokens)), count_text(mean(&ArmCost::all_tokens)),
                          flops_text(mean(&ArmCost::flops)), flops_text(mean(&ArmCost::all_flops)),
                          duration_text(mean(&ArmCost::seconds)), duration_text(mean(&ArmCost::all_seconds)),
                          bytes_text(mean(&ArmCost::peak_bytes))});
  }
  return table;
}

/// The arm with the best mean; nullptr when none is evaluated.
const ReportArm* best_of(const Comparison& comparison, const AblationMeasure& measure) {
  const ReportArm* best = nullptr;
  double best_mean = 0;
  for (const ReportArm& arm : comparison.arms) {
    const Spread spread = spread_of(values_of(arm, measure.of));
    if (spread.n == 0 ||
        (best != nullptr && (measure.less_is_better ? spread.mean >= best_mean : spread.mean <= best_mean)))
      continue;
    best = &arm;
    best_mean = spread.mean;
  }
  return best;
}

std::string csv_cell(std::string_view text) {
  const std::string shown = printable(text);
  if (shown.find_first_of(",\"\n") == std::string::npos &&
      (shown.empty() || std::string_view("=+-@").find(shown[0]) == std::string_view::npos))
    return shown;
  std::string cell = "\"";
  for (const char c : shown) cell += c == '"' ? std::string("\"\"") : std::string(1, c);
  return cell + "\"";
}

std::string number_cell(double value) { return std::isfinite(value) ? fmt::format("{}", value) : ""; }

void put(OrderedJson& object, const std::string& key, double value) {
  if (std::isfinite(value)) object[key] = value;
}

OrderedJson spread_json(const Spread& spread) {
  OrderedJson json = {{"n", spread.n}};
  put(json, "mean", spread.mean);
  put(json, "sd", spread.sd);
  return json;
}

void put_test(OrderedJson& object, const ArmDifference& difference, size_t measure) {
  put(object, "difference", difference.tests[measure].mean);
  put(object, "difference_sd", difference.tests[measure].sd);
  put(object, "t", difference.tests[measure].t);
  put(object, "p", difference.tests[measure].p);
  put(object, "p_holm", difference.corrected_p[measure]);
}

OrderedJson arm_json(const AblationReport& report, const Comparison& comparison,
                     const std::vector<ArmDifference>& differences, const ReportArm& arm) {
  const ReportModel& model = some_model(arm);
  OrderedJson json = {{"name", arm.name},
                      {"reference", arm.reference},
                      {"parameters", model.parameters},
                      {"training_tokens", model.training_tokens}};
  for (const AblationMeasure& measure : ablation_measures())
    json[measure.key] = spread_json(spread_of(values_of(arm, measure.of)));
  for (const ArmDifference& difference : differences) {
    if (difference.arm != &arm) continue;
    const bool own = difference.reference->name == arm.reference;
    for (size_t m = 0; m < ablation_measures().size(); ++m) {
      const char* key = ablation_measures()[m].key;
      put_test(own ? json[key] : json["also_against"][difference.reference->name][key], difference, m);
    }
  }
  for (const std::string& domain : domains_of(comparison))
    json["domains"][domain]["bits_per_byte"] =
        spread_json(spread_of(domain_values(arm, domain, &ReportScore::bits_per_byte)));
  json["seeds"] = OrderedJson::array();
  for (size_t i = 0; i < arm.models.size(); ++i) {
    OrderedJson of_seed = {{"seed", report.seeds[i]}};
    for (const AblationMeasure& measure : ablation_measures())
      put(of_seed, measure.key, arm.models[i].score.*(measure.of));
    for (const CostColumn& column : kCosts) put(of_seed, column.key, arm.costs[i].*(column.of));
    json["seeds"].push_back(of_seed);
  }
  return json;
}

}  // namespace

std::vector<ReportTable> ablation_tables(const AblationReport& report, const Comparison& comparison) {
  std::vector<ReportTable> tables;
  for (ReportTable& table : std::vector<ReportTable>{quality_table(report, comparison), difference_table(comparison),
                                                     domain_table(comparison), cost_table_of(comparison)}) {
    table = without_empty_columns(std::move(table));
    if (!table.rows.empty() && table.header.size() > 1) tables.push_back(std::move(table));
  }
  return tables;
}

std::string ablation_verdict(const AblationReport& report) {
  if (report.comparisons.empty()) return "Nothing to compare yet.";
  constexpr size_t kLoss = 0, kAccuracy = 2;
  const std::span<const AblationMeasure> measures = ablation_measures();
  const auto is_scored = [&](const Comparison& comparison) {
    return best_of(comparison, measures[kLoss]) != nullptr && best_of(comparison, measures[kAccuracy]) != nullptr;
  };
  const auto found = std::find_if(report.comparisons.rbegin(), report.comparisons.rend(), is_scored);
  if (found == report.comparisons.rend()) return "Nothing to compare yet: no arm has been evaluated.";
  const Comparison& last = *found;
  const ReportArm *by_loss = best_of(last, measures[kLoss]), *by_accuracy = best_of(last, measures[kAccuracy]);
  const auto shown = [&](const ReportArm& arm, size_t m) {
    return spread_text(spread_of(values_of(arm, measures[m].of)), measures[m].share);
  };
  std::string text = fmt::format("{}: of {} arms, '{}' has the lowest loss ({}) and '{}' the highest accuracy ({})",
                                 last.title, last.arms.size(), by_loss->name, shown(*by_loss, kLoss), by_accuracy->name,
                                 shown(*by_accuracy, kAccuracy));
  for (const ReportArm& arm : last.arms)
    if (arm.is_reference())
      text += fmt::format(". The reference '{}' has {} and {}", arm.name, shown(arm, kLoss), shown(arm, kAccuracy));
  if (report.seeds.size() < 2) return text + ". With one seed nothing can be said about chance.";
  text += fmt::format(". Against their references (paired, p < {} after Holm's correction)", kLevel);
  const std::vector<ArmDifference> differences = differences_of(last);
  for (const size_t m : {kLoss, kAccuracy}) {
    std::vector<std::string> better, worse;
    for (const ArmDifference& difference : differences) {
      if (difference.reference->name != difference.arm->reference || !(difference.corrected_p[m] < kLevel)) continue;
      const bool less = difference.tests[m].mean < 0;
      (less == measures[m].less_is_better ? better : worse).push_back(difference.arm->name);
    }
    const auto listed = [](const std::vector<std::string>& names) {
      return names.empty() ? std::string("none") : fmt::format("{}", fmt::join(names, ", "));
    };
    text += fmt::format("{} by {} better: {}, worse: {}", m == kLoss ? "" : ";", measures[m].title, listed(better),
                        listed(worse));
  }
  return text + ".";
}

std::string ablation_markdown(const AblationReport& report) {
  std::string text = fmt::format("# Ablation {}\n\n**{}**\n\n![Means, spread and seeds of every arm](ablation.svg)\n\n",
                                 escape_markdown(report.recipe), escape_markdown(ablation_verdict(report)));
  for (const Comparison& comparison : report.comparisons) {
    text += fmt::format("## {}\n\n", escape_markdown(comparison.title));
    for (const ReportTable& table : ablation_tables(report, comparison))
      text += fmt::format("### {}\n\n{}", escape_markdown(table.title), table_markdown(table));
  }
  text += "## Versions and machine\n\n";
  for (const auto* pairs : {&report.versions, &report.machine})
    for (const auto& [key, value] : *pairs)
      text += fmt::format("- {}: {}\n", escape_markdown(key), escape_markdown(value));
  return text;
}

std::string ablation_csv(const AblationReport& report) {
  std::set<std::string> domains;
  for (const Comparison& comparison : report.comparisons) domains.merge(domains_of(comparison));
  std::string text = "stage,arm,against,seed,parameters,training_tokens";
  for (const AblationMeasure& measure : ablation_measures()) text += fmt::format(",{}", measure.key);
  for (const std::string& domain : domains) text += "," + csv_cell("bits_per_byte." + domain);
  for (const CostColumn& column : kCosts) text += fmt::format(",{}", column.key);
  text += "\n";
  for (const Comparison& comparison : report.comparisons)
    for (const ReportArm& arm : comparison.arms)
      for (size_t i = 0; i < arm.models.size(); ++i) {
        const ReportModel& model = arm.models[i];
        if (model.name.empty()) continue;
        text +=
            fmt::format("{},{},{},{},{},{}", csv_cell(comparison.stage), csv_cell(arm.name), csv_cell(arm.reference),
                        report.seeds[i], model.parameters, number_cell(model.training_tokens));
        for (const AblationMeasure& measure : ablation_measures()) text += "," + number_cell(model.score.*(measure.of));
        for (const std::string& domain : domains)
          text += "," + (model.domains.contains(domain) ? number_cell(model.domains.at(domain).bits_per_byte)
                                                        : std::string());
        for (const CostColumn& column : kCosts) text += "," + number_cell(arm.costs[i].*(column.of));
        text += "\n";
      }
  return text;
}

std::string ablation_json(const AblationReport& report) {
  OrderedJson json = {{"recipe", report.recipe},
                      {"verdict", ablation_verdict(report)},
                      {"seeds", report.seeds},
                      {"shared_by_all_seeds", report.shared}};
  json["comparisons"] = OrderedJson::array();
  for (const Comparison& comparison : report.comparisons) {
    OrderedJson arms = OrderedJson::array();
    const std::vector<ArmDifference> differences = differences_of(comparison);
    for (const ReportArm& arm : comparison.arms) arms.push_back(arm_json(report, comparison, differences, arm));
    json["comparisons"].push_back({{"stage", comparison.stage}, {"title", comparison.title}, {"arms", arms}});
  }
  for (const auto& [key, pairs] : {std::pair{"versions", &report.versions}, {"machine", &report.machine}}) {
    json[key] = OrderedJson::object();
    for (const auto& [name, value] : *pairs) json[key][name] = value;
  }
  return json.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
}

std::string ablation_html(const AblationReport& report) {
  std::string body;
  for (const Comparison& comparison : report.comparisons) {
    std::string inner = figure_html(ablation_chart(comparison), "Means, spread and seeds of every arm",
                                    "Large dots are means over seeds, bars one sample standard deviation to each side, "
                                    "small dots the seeds; the dashed line "
                                    "is the reference's mean. Arms are sorted by loss.");
    for (const ReportTable& table : ablation_tables(report, comparison)) inner += table_html(table, true);
    body += section_html(comparison.title, inner);
  }
  for (const auto& [title, pairs] : {std::pair{"Versions", &report.versions}, {"Machine", &report.machine}}) {
    ReportTable table{.section = ReportSection::provenance,
                      .title = title,
                      .note = "",
                      .header = {"what", "value"},
                      .is_text = {true, true}};
    for (const auto& [key, value] : *pairs) table.rows.push_back({key, value});
    if (!table.rows.empty()) body += section_html(title, table_html(table, false));
  }
  return page_html("coppice ablation", report.recipe, {ablation_verdict(report)}, body);
}

}  // namespace coppice
