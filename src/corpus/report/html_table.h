// Tables of a corpus' page.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice {

using HtmlRows = std::vector<std::vector<std::string>>;

/// The first `left` columns are texts, the others numbers. Every cell is escaped.
std::string html_table(const std::vector<std::string>& header, const HtmlRows& rows, size_t left,
                       std::string_view note = "");

}  // namespace coppice
