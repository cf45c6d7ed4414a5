#include "recipes/report/paired_test.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "src/base/errors.h"

namespace coppice {

Spread spread_of(const std::vector<double>& values) {
  Spread spread{.n = 0, .mean = 0, .sd = 0};
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    ++spread.n;
    spread.mean += value;
  }
  spread.mean = spread.n > 0 ? spread.mean / spread.n : std::nan("");
  for (const double value : values)
    if (std::isfinite(value)) spread.sd += (value - spread.mean) * (value - spread.mean);
  spread.sd = spread.n > 1 ? std::sqrt(spread.sd / (spread.n - 1)) : std::nan("");
  return spread;
}

PairedTest paired_t_test(const std::vector<double>& a, const std::vector<double>& b) {
  COPPICE_CHECK(a.size() == b.size(), "one value a seed on both sides");
  std::vector<double> differences;
  for (size_t i = 0; i < a.size(); ++i) differences.push_back(a[i] - b[i]);
  const Spread spread = spread_of(differences);
  PairedTest test{.n = spread.n, .mean = spread.mean, .sd = spread.sd, .t = std::nan(""), .p = std::nan("")};
  if (spread.n < 2 || !(spread.sd > 0)) return test;
  test.t = spread.mean / (spread.sd / std::sqrt(static_cast<double>(spread.n)));
  test.p = t_test_p(test.t, spread.n - 1);
  return test;
}

std::vector<double> holm_corrected(const std::vector<double>& p) {
  std::vector<size_t> order;
  for (size_t i = 0; i < p.size(); ++i)
    if (!std::isnan(p[i])) order.push_back(i);
  std::ranges::stable_sort(order, {}, [&](size_t i) { return p[i]; });
  std::vector<double> corrected = p;
  double least = 0;  // a larger p never becomes a smaller one
  for (size_t rank = 0; rank < order.size(); ++rank) {
    least = std::max(least, std::min(1.0, p[order[rank]] * static_cast<double>(order.size() - rank)));
    corrected[order[rank]] = least;
  }
  return corrected;
}

double t_test_p(double t, int degrees) {
  COPPICE_CHECK(degrees >= 1, "degrees of freedom");
  const double angle = std::atan(std::abs(t) / std::sqrt(static_cast<double>(degrees)));
  const double sine = std::sin(angle), cosine = std::cos(angle);
  const bool odd = degrees % 2 == 1;
  double sum = 0, term = odd ? cosine : 1.0;  // cos, 2/3 cos^3, ... or 1, 1/2 cos^2, ...
  for (int k = odd ? 3 : 2; k <= degrees; k += 2) {
    sum += term;
    term *= cosine * cosine * (k - 1) / k;
  }
  const double inside = odd ? 2 / std::numbers::pi * (angle + sine * sum) : sine * sum;
  return std::clamp(1 - inside, 0.0, 1.0);
}

}  // namespace coppice
