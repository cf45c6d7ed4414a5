#include "recipes/compress/request.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <optional>

#include "recipes/language/parameter_budget.h"
#include "src/base/amount.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

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
  const ParameterBudget budget = parse_parameter_budget(text, "--params");
  return {budget.is_share ? Budget::Kind::share : Budget::Kind::parameters, budget.value};
}

Budget parse_bytes(std::string_view text) {
  const std::optional<double> value = parse_amount(text, kByteUnits);
  if (!value)
    throw UserError::recipe("--bytes",
                            fmt::format("got '{}', expected a size such as 80MB, 1.5GB or 700MiB", printable(text)));
  return {Budget::Kind::bytes, std::floor(*value)};
}

int64_t parse_tokens(std::string_view text) {
  const std::optional<double> value = parse_amount(text, kPlainUnits);
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
