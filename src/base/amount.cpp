#include "src/base/amount.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace coppice {

std::optional<double> parse_amount(std::string_view text, std::span<const AmountUnit> units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || number <= 0) return std::nullopt;
  const std::string_view rest = text.substr(static_cast<size_t>(end - text.data()));
  const auto unit = std::ranges::find(units, rest, &AmountUnit::name);
  if (unit == units.end() || number * unit->size > 1e18) return std::nullopt;
  return number * unit->size;
}

}  // namespace coppice
