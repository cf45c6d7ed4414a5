// Numbers with a unit behind them, as people write them: 108M, 1.5GB.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace coppice {

struct AmountUnit {
  std::string_view name;
  double size;
};
inline constexpr AmountUnit kPlainUnits[] = {{"", 1}};
inline constexpr AmountUnit kCountUnits[] = {{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"B", 1e9}};

/// A number above 0 and up to 1e18 with one of the units behind it; nothing for any other text.
std::optional<double> parse_amount(std::string_view text, std::span<const AmountUnit> units);

}  // namespace coppice
