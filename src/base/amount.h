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
inline constexpr AmountUnit kByteUnits[] = {{"", 1},
                                            {"B", 1},
                                            {"kB", 1e3},
                                            {"KB", 1e3},
                                            {"MB", 1e6},
                                            {"GB", 1e9},
                                            {"TB", 1e12},
                                            {"KiB", 1024},
                                            {"MiB", 1024.0 * 1024},
                                            {"GiB", 1024.0 * 1024 * 1024}};
inline constexpr AmountUnit kCountUnits[] = {{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"B", 1e9}};

/// A number above 0 and up to 1e18 with one of the units behind it; nothing for any other text.
std::optional<double> parse_amount(std::string_view text, std::span<const AmountUnit> units);

}  // namespace coppice
