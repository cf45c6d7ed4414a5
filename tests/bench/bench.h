// What the benchmark programs share, as common.py does for the peers: flags, ceilings of this very run, timing in
// turns, one JSON line per case. Output goes to stdout as JSON lines only: "ceilings", then "check" (a wrong answer
// ends the program with 1), then the cases.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "recipes/bench/timing.h"
#include "src/base/threads.h"
#include "src/tensors/shape.h"

COPPICE_BOUND_SPINNING;  // as the program itself

namespace coppice::bench {

/// --name value pairs, all integers; threads, repeats and warmup are always there. Ends with 2 on an unknown flag.
class Flags {
 public:
  Flags(int argc, char** argv, std::vector<std::pair<std::string, int64_t>> defaults) : values_(std::move(defaults)) {
    values_.insert(values_.begin(), {{"threads", 2}, {"repeats", 5}, {"warmup", 1}});
    for (int i = 1; i < argc; i += 2) {
      const std::string word = argv[i];
      const auto found = std::ranges::find_if(values_, [&](const auto& value) { return word == "--" + value.first; });
      if (found == values_.end() || i + 1 >= argc) {
        std::vector<std::string> known;
        for (const auto& [name, value] : values_) known.push_back(fmt::format("--{} {}", name, value));
        fmt::print(stderr, "usage: {} {}\n", argv[0], fmt::join(known, " "));
        std::exit(2);
      }
      found->second = std::atoll(argv[i + 1]);
    }
    start_torch(static_cast<int>((*this)["threads"]));
  }
  int64_t operator[](const std::string& name) const {
    return std::ranges::find(values_, name, &std::pair<std::string, int64_t>::first)->second;
  }
  const std::vector<std::pair<std::string, int64_t>>& all() const { return values_; }

 private:
  std::vector<std::pair<std::string, int64_t>> values_;
};

using Readings = std::vector<std::pair<std::string, double>>;

/// One JSON line: the case, every flag, then the readings.
inline void emit(const std::string& name, const Flags& flags, const Readings& readings) {
  std::string line = fmt::format(R"({{"case": "{}")", name);
  for (const auto& [flag, value] : flags.all()) line += fmt::format(R"(, "{}": {})", flag, value);
  for (const auto& [key, value] : readings) line += fmt::format(R"(, "{}": {:.5g})", key, value);
  std::puts((line + "}").c_str());
  std::fflush(stdout);
}

/// The "check" line; ends the program with 1 when the answer is wrong (NaN included).
inline void emit_check(const Flags& flags, double error, double limit) {
  emit("check", flags, {{"error", error}, {"limit", limit}});
  if (!(error <= limit)) std::exit(1);
}

/// Times each case once per turn, turn after turn, so that drift meets all alike; per case median, 20th and 80th
/// percentile and mean in seconds.
inline std::vector<Readings> measure(const Flags& flags, const std::vector<std::function<void()>>& cases) {
  std::vector<std::vector<double>> times(cases.size());
  for (int64_t turn = 0; turn < flags["warmup"] + flags["repeats"]; ++turn)
    for (size_t i = 0; i < cases.size(); ++i) {
      const double spent = seconds(cases[i]);
      if (turn >= flags["warmup"]) times[i].push_back(spent);
    }
  std::vector<Readings> readings;
  for (const std::vector<double>& values : times)
    readings.push_back(
        {{"median_s", quantile(values, 0.5)},
         {"p20_s", quantile(values, 0.2)},
         {"p80_s", quantile(values, 0.8)},
         {"mean_s", std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size())}});
  return readings;
}

/// Of this very run; printed as the first line.
inline Ceilings measure_ceilings(const Flags& flags) {
  const Ceilings roof = measure_ceilings(Placement{});
  emit("ceilings", flags, {{"gemm_gflops", roof.gemm_gflops}, {"copy_gbs", roof.copy_gbs}});
  return roof;
}

/// Median of paired ratios with the order statistics that enclose it with 95 % confidence.
inline Readings interval(const std::vector<double>& ratios, const std::string& name) {
  const auto n = static_cast<double>(ratios.size());
  const double half = 0.98 * std::sqrt(n) / n;  // 1.96 standard deviations of a binomial(n, 1/2), as a share of n
  return {{name, quantile(ratios, 0.5)},
          {name + "_low", quantile(ratios, std::max(0.0, 0.5 - half))},
          {name + "_high", quantile(ratios, std::min(1.0, 0.5 + half))}};
}

}  // namespace coppice::bench
