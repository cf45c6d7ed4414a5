#include "recipes/compress/request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>

#include "src/base/errors.h"

namespace coppice {
namespace {

struct Unit {
  std::string_view name;
  double size;
};
constexpr Unit kCounts[] = {{"", 1}, {"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"B", 1e9}};
constexpr Unit kBytes[] = {{"", 1},
                           {"B", 1},
                           {"kB", 1e3},
                           {"KB", 1e3},
                           {"MB", 1e6},
                           {"GB", 1e9},
                           {"KiB", 1024},
                           {"MiB", 1024.0 * 1024},
                           {"GiB", 1024.0 * 1024 * 1024}};

/// A number above 0 with one of the units behind it; nothing for any other text.
std::optional<double> amount(std::string_view text, std::span<const Unit> units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || number <= 0) return std::nullopt;
  const std::string_view rest = text.substr(static_cast<size_t>(end - text.data()));
  const auto unit = std::ranges::find(units, rest, &Unit::name);
  if (unit == units.end() || number * unit->size > 1e18) return std::nullopt;
  return number * unit->size;
}

/// As a shell takes it back.
std::string shell_word(const std::string& text) {
  const auto plain = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("_./+@%:,=-").find(static_cast<char>(c)) != std::string_view::npos;
  };
  if (!text.empty() && std::ranges::all_of(text, plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string budget_flag(const Budget& budget) {
  switch (budget.kind) {
    case Budget::Kind::share:
      return fmt::format("--params {}x", budget.value);
    case Budget::Kind::parameters:
      return fmt::format("--params {:.0f}", budget.value);
    case Budget::Kind::bytes:
      return fmt::format("--bytes {:.0f}", budget.value);
    case Budget::Kind::channels:
      return fmt::format("--intermediate-size {:.0f}", budget.value);
  }
  throw InternalError("no such kind of budget");
}

}  // namespace

Budget parse_parameters(std::string_view text) {
  const bool is_share = text.ends_with('x');
  const std::optional<double> value =
      is_share ? amount(text.substr(0, text.size() - 1), std::span(kCounts, 1)) : amount(text, kCounts);
  if (!value || (!is_share && *value < 1))
    throw UserError::recipe("--params",
                            fmt::format("got '{}', expected a share such as 0.8x, or a number of parameters "
                                        "such as 108e6, 108M or 1.2B",
                                        printable(text)));
  return {is_share ? Budget::Kind::share : Budget::Kind::parameters, is_share ? *value : std::floor(*value)};
}

Budget parse_bytes(std::string_view text) {
  const std::optional<double> value = amount(text, kBytes);
  if (!value)
    throw UserError::recipe("--bytes",
                            fmt::format("got '{}', expected a size such as 80MB, 1.5GB or 700MiB", printable(text)));
  return {Budget::Kind::bytes, std::floor(*value)};
}

int64_t parse_tokens(std::string_view text) {
  const std::optional<double> value = amount(text, std::span(kCounts, 1));
  if (!value || *value != std::floor(*value) || *value > 1e15)
    throw UserError::recipe("--tokens",
                            fmt::format("got '{}', expected a number of tokens such as 3e5", printable(text)));
  return static_cast<int64_t>(*value);
}

std::string request_line(const CompressRequest& request) {
  std::string line = fmt::format("# coppice compress {} --text {} {}", shell_word(plain_path(request.model, "MODEL")),
                                 shell_word(plain_path(request.text, "--text")), budget_flag(request.budget));
  line += request.tokens > 0 ? fmt::format(" --tokens {}", request.tokens) : fmt::format(" --hours {}", request.hours);
  line += fmt::format(" --format {}", fmt::join(request.formats, ","));
  if (!request.quantization.empty()) line += " --quantization " + request.quantization;
  if (request.threads > 0) line += fmt::format(" --threads {}", request.threads);
  return line;
}

std::string plain_path(const std::string& path, const char* flag) {
  if (path.empty() || printable(path) != path)
    throw UserError::recipe(flag, fmt::format("got '{}', expected a path without control characters", printable(path)));
  std::string plain = std::filesystem::path(path).lexically_normal().string();
  while (plain.size() > 1 && plain.ends_with('/')) plain.pop_back();
  return plain;
}

}  // namespace coppice
