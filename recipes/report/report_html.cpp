// report.html: one page that stands alone. No script, no font, no request; drawings are inline SVG; every word from
// outside is escaped.
#include <fmt/format.h>

#include <cmath>

#include "recipes/report/report.h"
#include "recipes/report/report_charts.h"
#include "recipes/report/report_page.h"
#include "recipes/report/report_tables.h"
#include "src/base/log.h"

namespace coppice {
namespace {

constexpr const char* kPageStyle = R"css(
:root{color-scheme:light dark;--ink:#1c2126;--soft:#5d666e;--line:#dfe4e8;--page:#fff;--tile:#f5f7f8;--accent:#0072b2;--bad:#b3261e;--good:#00734f}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaee;--soft:#98a2ab;--line:#2a3138;--page:#0f1317;--tile:#171d23;--accent:#56b4e9;--bad:#ff8a80;--good:#4fd1a5}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:40px 40px 80px}
.kicker{color:var(--soft);font-size:13px;letter-spacing:.06em;text-transform:uppercase;margin:0}
h1{font-size:32px;line-height:1.2;margin:4px 0 20px;font-weight:680;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:21px;line-height:1.3;margin:56px 0 16px;padding-top:20px;border-top:1px solid var(--line);font-weight:650}
h3{font-size:15px;margin:28px 0 6px;font-weight:650}
.verdict{font-size:18px;line-height:1.55;border-left:4px solid var(--accent);padding:2px 0 2px 18px;margin:0 0 28px;max-width:76ch}
.verdict p{margin:0}.verdict .first{font-weight:650}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:0;padding:0}
.tiles div{background:var(--tile);border-radius:8px;padding:14px 16px}
.tiles dt{color:var(--soft);font-size:13px}.tiles dd{margin:2px 0 0;font-size:26px;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.tiles small{display:block;color:var(--soft);font-size:13px;font-weight:400;margin-top:2px}
.note{color:var(--soft);font-size:13.5px;max-width:84ch;margin:8px 0 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:14px;line-height:1.4;font-variant-numeric:tabular-nums;min-width:320px}
th,td{padding:6px 14px 6px 0;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500;font-size:13px;vertical-align:bottom}
th.t,td.t{text-align:left}td:first-child{font-weight:550}th:last-child,td:last-child{padding-right:0}
.wrap td.t{white-space:normal;overflow-wrap:anywhere}
tr.total td{color:var(--soft);font-weight:550}tr.student td:first-child{color:var(--accent)}
.bad{color:var(--bad);font-weight:700}.good{color:var(--good)}
figure{margin:24px 0;overflow-x:auto}figure svg{min-width:720px;display:block}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:0 40px}.columns table{font-size:13px;min-width:0}.columns th,.columns td{padding:5px 12px 5px 0}
@media (max-width:640px){main{padding:24px 18px 48px}h1{font-size:26px}}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}figure,table{break-inside:avoid}}
)css";

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

std::string figure_html(const std::optional<Svg>& chart, std::string_view title, std::string_view caption) {
  if (!chart) return "";
  const std::string words =
      caption.empty() ? "" : fmt::format("<figcaption class=\"note\">{}</figcaption>\n", escape_xml(caption));
  return fmt::format("<figure>\n{}{}</figure>\n", chart->inline_element(title), words);
}

std::string section_html(std::string_view heading, const std::string& body) {
  return body.empty() ? "" : fmt::format("<section>\n<h2>{}</h2>\n{}</section>\n", escape_xml(heading), body);
}

std::string page_html(std::string_view kicker, std::string_view name, const std::vector<std::string>& verdict,
                      const std::string& body) {
  std::string sentences;
  for (size_t i = 0; i < verdict.size(); ++i)
    sentences +=
        fmt::format("<p{}>{}</p>\n", i == 0 && verdict.size() > 1 ? " class=\"first\"" : "", escape_xml(verdict[i]));
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\">\n<title>Report of "
      "{1}</title>\n<style>{2}{3}</style>\n</head>\n"
      "<body>\n<main>\n<p class=\"kicker\">{0}</p>\n<h1>{1}</h1>\n<div "
      "class=\"verdict\">{4}</div>\n{5}</main>\n</body>\n</html>\n",
      escape_xml(kicker), escape_xml(name), kPageStyle, chart_style(), sentences, body);
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
