#include "src/checkpoint/rope_factors.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace coppice {
namespace {

// Llama 3.1 and 3.2 have 8192 (and 1 to 4 turns); others train longer or shorter first.
constexpr int64_t kLengths[] = {8192, 4096, 16384, 32768, 2048, 65536, 131072, 1024, 512, 256, 128, 64, 32, 262144};

/// Turns of frequency `i` in one token.
double turns_a_token(double rope_theta, int64_t head_dim, size_t i) {
  return std::pow(rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)) / (2 * std::numbers::pi);
}

double factor_at(const RopeScaling& scaling, double turns_a_token) {
  const double turns = turns_a_token * static_cast<double>(scaling.original_max_position_embeddings);
  const double kept =
      std::clamp((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor), 0.0, 1.0);
  return 1.0 / (kept + (1.0 - kept) / scaling.factor);
}

/// Converters compute frequencies in float32, off by a few units in the last place; where a factor falls steeply, that
/// comes back multiplied by the factor.
bool is_close(double expected, double found) {
  constexpr double kRounding = 2e-6;
  return std::fabs(found - expected) <= kRounding * (1.0 + expected) * expected;
}

bool gives(const RopeScaling& scaling, std::span<const float> factors, double rope_theta, int64_t head_dim) {
  for (size_t i = 0; i < factors.size(); ++i)
    if (!is_close(factor_at(scaling, turns_a_token(rope_theta, head_dim, i)), double{factors[i]})) return false;
  return true;
}

/// Between the plateaus `kept` is a straight line in the frequency: slope and intercept by least squares.
std::optional<RopeScaling> fit(std::span<const float> factors, double factor, double rope_theta, int64_t head_dim,
                               int64_t max_positions) {
  double count = 0, sum_x = 0, sum_y = 0, sum_xx = 0, sum_xy = 0;
  for (size_t i = 0; i < factors.size(); ++i) {
    const double value = double{factors[i]};
    if (is_close(1.0, value) || is_close(factor, value)) continue;
    const double x = turns_a_token(rope_theta, head_dim, i), y = (1.0 / value - 1.0 / factor) / (1.0 - 1.0 / factor);
    count += 1, sum_x += x, sum_y += y, sum_xx += x * x, sum_xy += x * y;
  }
  const double spread = count * sum_xx - sum_x * sum_x;
  if (count < 2 || !(spread > 0)) return std::nullopt;
  const double slope = (count * sum_xy - sum_x * sum_y) / spread, intercept = (sum_y - slope * sum_x) / count;
  // kept = turns / (high - low) - low / (high - low); with low = 1 the length follows, and is rounded up to a whole one
  // by making all three larger.
  if (!(slope > 0) || !(intercept < 0)) return std::nullopt;
  const double length = slope / -intercept;
  if (!(length <= static_cast<double>(max_positions))) return std::nullopt;
  const double whole = std::ceil(length - 1e-3), low = whole / length;
  return RopeScaling{.factor = factor,
                     .low_freq_factor = low,
                     .high_freq_factor = low + low / -intercept,
                     .original_max_position_embeddings = static_cast<int64_t>(whole)};
}

}  // namespace

std::vector<float> rope_factors(const RopeScaling& scaling, double rope_theta, int64_t head_dim) {
  std::vector<float> factors(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < factors.size(); ++i)
    factors[i] = static_cast<float>(factor_at(scaling, turns_a_token(rope_theta, head_dim, i)));
  return factors;
}

std::optional<RopeScaling> find_rope_scaling(std::span<const float> factors, double rope_theta, int64_t head_dim,
                                             int64_t max_positions) {
  const double largest = double{*std::ranges::max_element(factors)};
  if (!(largest > 1.0)) return std::nullopt;
  // Where the slowest frequency is not slow enough the largest factor is not the model's.
  for (const double factor : {largest, 8.0, 32.0, 16.0, 4.0, 2.0, 64.0})
    for (const double high : {4.0, 2.0, 8.0, 16.0})
      for (const int64_t length : kLengths) {
        const RopeScaling scaling{.factor = factor,
                                  .low_freq_factor = 1.0,
                                  .high_freq_factor = high,
                                  .original_max_position_embeddings = length};
        if (length <= max_positions && gives(scaling, factors, rope_theta, head_dim)) return scaling;
      }
  const std::optional<RopeScaling> fitted = fit(factors, largest, rope_theta, head_dim, max_positions);
  return fitted && gives(*fitted, factors, rope_theta, head_dim) ? fitted : std::nullopt;
}

}  // namespace coppice
