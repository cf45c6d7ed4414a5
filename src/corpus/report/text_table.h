// Tables for a terminal.
#pragma once

#include <string>
#include <vector>

namespace coppice {

/// Columns two blanks apart: the first `left` of them begin, the others end at one place. Cells are made printable.
std::string text_table(const std::vector<std::string>& header, const std::vector<std::vector<std::string>>& rows,
                       size_t left);
/// `12.34%`; `-` of nothing.
std::string percent_text(uint64_t part, uint64_t whole);

}  // namespace coppice
