#include "recipes/report/report_speed.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

namespace coppice {
namespace {

constexpr const char* kNone = "\u2013";

bool is_measured(const ReportSpeed& speed) { return std::isfinite(speed.decode.median); }

/// Ranges that are not known may overlap.
bool overlap(const ReportRate& a, const ReportRate& b) { return !(a.low > b.high || b.low > a.high); }

/// Three figures at least: "1214", "52.3", "6.18".
std::string rate_text(double rate) { return fixed_text(rate, rate >= 100 ? 0 : rate >= 10 ? 1 : 2); }

/// "52.3 (50.1 to 53.0)"
std::string range_text(const ReportRate& rate) {
  if (!std::isfinite(rate.median)) return kNone;
  return fmt::format("{} ({} to {})", rate_text(rate.median), rate_text(rate.low), rate_text(rate.high));
}

/// How many times as fast; NaN where the ranges overlap.
double times_as_fast(const ReportSpeed& speed, const ReportSpeed& other) {
  const bool known = is_measured(speed) && is_measured(other) && other.decode.median > 0;
  return known && !overlap(speed.decode, other.decode) ? speed.decode.median / other.decode.median : kAbsent;
}

/// The same program and type of weights on the model that `speed`'s was cut or distilled from.
const ReportSpeed* source_speed(const Report& report, const ReportSpeed& speed) {
  const auto model = std::ranges::find(report.models, speed.model, &ReportModel::name);
  const ReportModel* source = model == report.models.end() ? nullptr : source_of(report, *model);
  if (source == nullptr || source->name == speed.model || !is_measured(speed)) return nullptr;
  const auto found = std::ranges::find_if(report.speeds, [&](const ReportSpeed& other) {
    return is_measured(other) && other.model == source->name && other.program == speed.program &&
           other.type == speed.type && other.conditions == speed.conditions;
  });
  return found == report.speeds.end() ? nullptr : &*found;
}

std::string against_source(const Report& report, const ReportSpeed& speed) {
  const ReportSpeed* source = source_speed(report, speed);
  if (source == nullptr) return kNone;
  const double times = times_as_fast(speed, *source);
  return std::isfinite(times) ? fmt::format("{:.2f}x", times) : "no difference shown";
}

}  // namespace

ReportTable speeds_table(const Report& report) {
  ReportTable table{
      .section = ReportSection::speed,
      .title = "Speed and size",
      .note =
          "Batch 1, greedy; the median turn, and the slowest to the quickest; no difference is shown where these "
          "ranges overlap. Size is the file's, in coppice that of the weights in memory; memory is that of the "
          "weights and what decoding adds to it at most.",
      .header = {"model", "role", "program", "file", "weights", "size", "prompt tokens/s", "new tokens/s", "memory",
                 "new tokens/s against its source"},
      .is_text = {true, true, true, true, true, false, false, false, false, false}};
  if (std::ranges::none_of(report.speeds, is_measured)) return table;
  std::vector<std::string> conditions;
  for (const ReportSpeed& speed : report.speeds) {
    const auto model = std::ranges::find(report.models, speed.model, &ReportModel::name);
    table.rows.push_back({speed.model, model == report.models.end() ? kNone : model->role,
                          speed.program.empty() ? kNone : speed.program, speed.file.empty() ? kNone : speed.file,
                          speed.type.empty() ? kNone : speed.type, bytes_text(speed.file_bytes),
                          range_text(speed.prefill), range_text(speed.decode), bytes_text(speed.peak_bytes),
                          against_source(report, speed)});
    if (!is_measured(speed)) continue;
    const std::string words = fmt::format("{}: {}", speed.program, speed.conditions);
    if (std::ranges::find(conditions, words) == conditions.end()) conditions.push_back(words);
  }
  table.note += fmt::format(" In {}.", fmt::join(conditions, "; in "));
  return table;
}

std::string speed_clause(const Report& report) {
  const ReportModel* judged = judged_model(report);
  std::vector<std::string> told, parts;  // one type of weights for each program
  for (const ReportSpeed& speed : report.speeds) {
    if (judged == nullptr || speed.model != judged->name) continue;
    const ReportSpeed* source = source_speed(report, speed);
    if (source == nullptr || std::ranges::find(told, speed.program) != told.end()) continue;
    told.push_back(speed.program);
    const double times = times_as_fast(speed, *source);
    parts.push_back(fmt::format(
        "{} in {} ({})", std::isfinite(times) ? fmt::format("{:.2f}x as fast", times) : "with no difference shown",
        speed.program, speed.type));
  }
  return parts.empty() ? "" : "decodes " + listed(parts);
}

}  // namespace coppice
