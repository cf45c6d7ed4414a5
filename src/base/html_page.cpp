#include "src/base/html_page.h"

#include <fmt/format.h>

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

}  // namespace

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
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"/>\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'\"/>\n<title>Report of "
      "{1}</title>\n<style>{2}{3}</style>\n</head>\n"
      "<body>\n<main>\n<p class=\"kicker\">{0}</p>\n<h1>{1}</h1>\n<div "
      "class=\"verdict\">{4}</div>\n{5}</main>\n</body>\n</html>\n",
      escape_xml(kicker), escape_xml(name), kPageStyle, chart_style(), sentences, body);
}

}  // namespace coppice
