#include "recipes/report/report_refit.h"

#include <fmt/format.h>

#include <algorithm>

namespace coppice {

ReportTable refits_table(const Report& report) {
  ReportTable table{.section = ReportSection::masks,
                    .title = "Refit",
                    .note =
                        "By layer: what the cut layer's output misses of the uncut one's on calibration text, as a "
                        "share of it, straight after the cut \u2192 with down_proj solved anew. Below: held-out loss "
                        "in nats a token, and the part of what the cut cost that the refit brought back.",
                    .header = {"layer"},
                    .is_text = {true}};
  size_t layers = 0;
  for (const ReportRefit& refit : report.refits) {
    table.header.push_back(refit.stage);
    layers = std::max(layers, refit.before.size());
  }
  table.is_text.resize(table.header.size(), false);
  if (report.refits.empty()) return table;
  const auto add = [&](const std::string& name, const auto& text) {
    std::vector<std::string> row = {name};
    for (const ReportRefit& refit : report.refits) row.push_back(text(refit));
    table.rows.push_back(std::move(row));
  };
  for (size_t layer = 0; layer < layers; ++layer)
    add(std::to_string(layer), [&](const ReportRefit& refit) {
      return layer < refit.before.size()
                 ? fmt::format("{} \u2192 {}", share_text(refit.before[layer]), share_text(refit.after[layer]))
                 : share_text(kAbsent);
    });
  for (const auto& [name, loss] : {std::pair{"loss, uncut", &ReportRefit::uncut_loss},
                                   {"loss, cut", &ReportRefit::cut_loss},
                                   {"loss, refitted", &ReportRefit::refitted_loss}})
    add(name, [&, loss = loss](const ReportRefit& refit) { return fixed_text(refit.*loss, 4); });
  add("closed", [](const ReportRefit& refit) { return share_text(refit.closed()); });
  return table;
}

}  // namespace coppice
