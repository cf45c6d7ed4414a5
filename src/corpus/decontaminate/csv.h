// Tables of comma-separated values (RFC 4180).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// All rows. A field in quotes may hold commas, line breaks and doubled quotes; blank lines are passed over. Nothing
/// where a quote is not closed.
std::optional<std::vector<std::vector<std::string>>> parse_csv(std::string_view text);

}  // namespace coppice
