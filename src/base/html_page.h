// The frame of every page of ours: one file that stands alone, no script, no font, no request; every word from outside
// is escaped, and the markup is well-formed XML as well.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/svg.h"

namespace coppice {

/// The whole page around `body`; `verdict` a sentence a line.
std::string page_html(std::string_view kicker, std::string_view name, const std::vector<std::string>& verdict,
                      const std::string& body);
/// A heading and its body; empty when the body is.
std::string section_html(std::string_view heading, const std::string& body);
std::string figure_html(const std::optional<Svg>& chart, std::string_view title, std::string_view caption = "");

}  // namespace coppice
