// report.html: one page that stands alone. No script, no font, no request; drawings are inline SVG; every word from
// outside is escaped.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "recipes/report/report.h"
#include "recipes/report/report_charts.h"
#include "recipes/report/report_page.h"
#include "recipes/report/report_tables.h"
#include "src/base/log.h"

namespace coppice {
namespace {

/// The four numbers a reader looks for first.
std::string tiles_html(const Report& report) {
  const ReportModel* student = judged_model(report);
  const ReportModel* source = student == nullptr ? nullptr : source_of(report, *student);
  if (source == nullptr || source->parameters <= 0) return "";
  const auto tile = [](std::string_view name, const std::string& value, const std::string& detail) {
    return fmt::format("<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>\n", escape_xml(name), escape_xml(value),
                       escape_xml(detail));
  };
  std::string html = "<dl class=\"tiles\">\n";
  html += tile("Parameters",
               share_text(static_cast<double>(student->parameters) / static_cast<double>(source->parameters), 0),
               fmt::format("{} of {}", format_count(static_cast<double>(student->parameters)),
                           format_count(static_cast<double>(source->parameters))));
  if (source->score.accuracy > 0 && std::isfinite(student->score.accuracy))
    html += tile("Accuracy kept", share_text(student->score.accuracy / source->score.accuracy, 0),
                 fmt::format("{} of {}", share_text(student->score.accuracy), share_text(source->score.accuracy)));
  if (std::isfinite(student->score.teacher_agreement))
    html += tile("Agreement with the teacher", share_text(student->score.teacher_agreement, 0), "of top-1 tokens");
  if (std::isfinite(student->score.loss) && std::isfinite(source->score.loss))
    html += tile("Held-out loss", fixed_text(student->score.loss, 3),
                 fmt::format("nats a token; source {}", fixed_text(source->score.loss, 3)));
  return html + "</dl>\n";
}

}  // namespace

std::string table_html(const ReportTable& table, bool with_title, const std::vector<std::string>& highlighted) {
  std::string html = with_title ? fmt::format("<h3>{}</h3>\n", escape_xml(table.title)) : "";
  const bool wrap = table.section == ReportSection::checks || table.section == ReportSection::provenance;
  html += fmt::format("<div class=\"scroll{}\"><table>\n<thead><tr>", wrap ? " wrap" : "");
  for (size_t i = 0; i < table.header.size(); ++i)
    html +=
        fmt::format("<th scope=\"col\"{}>{}</th>", table.is_text[i] ? " class=\"t\"" : "", escape_xml(table.header[i]));
  html += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const auto& row = table.rows[i];
    const bool total = i + table.num_totals >= table.rows.size();
    const bool student = (table.section == ReportSection::models || table.section == ReportSection::speed) &&
                         std::ranges::find(highlighted, row[0]) != highlighted.end();
    html += total ? "<tr class=\"total\">" : student ? "<tr class=\"student\">" : "<tr>";
    for (size_t column = 0; column < row.size(); ++column) {
      std::string css = table.is_text[column] ? "t" : "";
      if (table.section == ReportSection::checks && column + 1 == row.size())
        css += row[column] == "passed" ? " good" : " bad";
      html +=
          fmt::format("<td{}>{}</td>", css.empty() ? "" : fmt::format(" class=\"{}\"", css), escape_xml(row[column]));
    }
    html += "</tr>\n";
  }
  html += "</tbody></table></div>\n";
  if (!table.note.empty()) html += fmt::format("<p class=\"note\">{}</p>\n", escape_xml(table.note));
  return html;
}

std::string report_html(const Report& report) {
  const std::vector<ReportTable> tables = report_tables(report);
  std::vector<std::string> students;
  for (const ReportModel& model : report.models)
    if (model.role == "student") students.push_back(model.name);
  const auto section_tables = [&](ReportSection section, std::string_view heading) {
    std::string wide, columns;  // the first table takes the page's width, further ones stand side by side
    for (const ReportTable& table : tables) {
      if (table.section != section) continue;
      const std::string body = table_html(table, table.title != heading, students);
      if (wide.empty() && section != ReportSection::provenance)
        wide = body;
      else
        columns += "<div>\n" + body + "</div>\n";
    }
    return columns.empty() ? wide : wide + "<div class=\"columns\">\n" + columns + "</div>\n";
  };
  std::string html = tiles_html(report);
  if (const ReportTable table = comparisons_table(report); !table.rows.empty())
    html += table_html(table, /*with_title=*/true, students);
  html += section_html(
      "Models", figure_html(models_chart(report), "Bars of parameters, loss, accuracy and agreement for each model") +
                    section_tables(ReportSection::models, "Models"));
  html += section_html("Speed and size", section_tables(ReportSection::speed, "Speed and size"));
  html += section_html("Training", figure_html(loss_chart(report), "Training and held-out loss of every training stage",
                                               "Cross-entropy on the true next token in every stage, also where "
                                               "teacher labels are trained on. Under learn_masks "
                                               "the model is masked while it is measured.") +
                                       figure_html(after_cut_chart(report), "Held-out loss by tokens since the cut") +
                                       figure_html(rate_chart(report), "Learning rate and gradient norm"));
  html += section_html(
      "The mask", figure_html(mask_chart(report), "Kept share, sharpness and churn of each layer over the mask stage") +
                      section_tables(ReportSection::masks, "The mask"));
  html += section_html("Costs", section_tables(ReportSection::costs, "Costs"));
  html += section_html("Checks", section_tables(ReportSection::checks, "Checks"));
  html += section_html("Versions and machine", section_tables(ReportSection::provenance, "Versions and machine"));
  return page_html("coppice report", report.recipe, verdict_sentences(report), html);
}

}  // namespace coppice
