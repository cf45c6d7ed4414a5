#include "recipes/report/report_refit.h"

#include <fmt/format.h>

#include <set>
#include <tuple>

namespace coppice {

ReportTable refits_table(const Report& report) {
  ReportTable table{.section = ReportSection::masks,
                    .title = "Refit",
                    .note =
                        "By layer and matrix: what its output misses on calibration text of what the uncut model gives "
                        "in its place, as a share of that, straight after the cut \u2192 solved anew. Below: held-out "
                        "loss in nats a token, and the part of what the cut cost that the refit brought back.",
                    .header = {"layer"},
                    .is_text = {true}};
  std::set<std::tuple<int64_t, bool, std::string>> rows;  // o_proj before down_proj
  for (const ReportRefit& refit : report.refits) {
    table.header.push_back(refit.stage);
    for (const ReportRefitted& each : refit.refitted)
      rows.emplace(each.layer, each.weight == ReportRefitted().weight, each.weight);
  }
  table.is_text.resize(table.header.size(), false);
  if (report.refits.empty()) return table;
  const auto add = [&](const std::string& name, const auto& text) {
    std::vector<std::string> row = {name};
    for (const ReportRefit& refit : report.refits) row.push_back(text(refit));
    table.rows.push_back(std::move(row));
  };
  for (const auto& [layer, last, weight] : rows)
    add(fmt::format("{} {}", layer, weight), [&](const ReportRefit& refit) {
      for (const ReportRefitted& each : refit.refitted)
        if (each.layer == layer && each.weight == weight)
          return fmt::format("{} \u2192 {}", share_text(each.before), share_text(each.after));
      return share_text(kAbsent);
    });
  for (const auto& [name, loss] : {std::pair{"loss, uncut", &ReportRefit::uncut_loss},
                                   {"loss, cut", &ReportRefit::cut_loss},
                                   {"loss, refitted", &ReportRefit::refitted_loss}})
    add(name, [&, loss = loss](const ReportRefit& refit) { return fixed_text(refit.*loss, 4); });
  add("closed", [](const ReportRefit& refit) { return share_text(refit.closed()); });
  return table;
}

}  // namespace coppice
