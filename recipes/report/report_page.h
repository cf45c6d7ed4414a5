// The parts that every page of ours is made of: one file that stands alone, no script, no font, no request; every word
// from outside is escaped.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/report/report_tables.h"
#include "recipes/report/svg.h"

namespace coppice {

/// The whole page around `body`; `verdict` a sentence a line.
std::string page_html(std::string_view kicker, std::string_view name, const std::vector<std::string>& verdict,
                      const std::string& body);
/// A heading and its body; empty when the body is.
std::string section_html(std::string_view heading, const std::string& body);
/// `highlighted`: rows of the models section whose first cell is one of these.
std::string table_html(const ReportTable& table, bool with_title, const std::vector<std::string>& highlighted = {});
std::string figure_html(const std::optional<Svg>& chart, std::string_view title, std::string_view caption = "");

}  // namespace coppice
