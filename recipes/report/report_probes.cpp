#include "recipes/report/report_probes.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace coppice {

std::string probes_note(const Report& report) {
  const auto any = [&](double ReportScore::*measure) {
    return std::ranges::any_of(report.models,
                               [&](const ReportModel& model) { return std::isfinite(model.score.*measure); });
  };
  std::string note;
  if (any(&ReportScore::calibrated_loss))
    note +=
        " How much of that is sharpness shows the loss at fitted T: one temperature for all logits, fitted on one half "
        "of each domain's windows and scored on the other, either way round; T is that of all windows, above 1 where a "
        "model is too sure of itself. ECE, the expected calibration error: how far the probability of the top-1 token "
        "lies from how often it is right, mean over 15 bins.";
  if (any(&ReportScore::copying_accuracy))
    note += " Copying is the accuracy on random tokens that come a second time, the mean over distances.";
  return note;
}

ReportTable copying_table(const Report& report) {
  std::set<int64_t> distances;
  for (const ReportModel& model : report.models)
    for (const ReportCopying& copying : model.copying) distances.insert(copying.distance);
  ReportTable table{.section = ReportSection::models,
                    .title = "Copying by distance",
                    .note =
                        "Random tokens, then the same once more: accuracy of the model's own top-1 token the second "
                        "time (loss in nats a token), by how far behind a token its repetition stands. The same tokens "
                        "for every model; a model that does not look back guesses among all of them.",
                    .header = {"model"},
                    .is_text = {true}};
  for (const int64_t distance : distances) table.header.push_back(std::to_string(distance));
  table.is_text.resize(table.header.size(), false);
  if (distances.empty()) return table;
  for (const ReportModel& model : report.models) {
    std::vector<std::string> row = {model.name};
    for (const int64_t distance : distances) {
      const auto found = std::ranges::find(model.copying, distance, &ReportCopying::distance);
      row.push_back(found == model.copying.end()
                        ? "\u2013"
                        : fmt::format("{} ({})", share_text(found->accuracy), fixed_text(found->loss, 2)));
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

}  // namespace coppice
