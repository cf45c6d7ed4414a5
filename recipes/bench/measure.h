// How fast this machine runs the hot paths, as shares of its own ceilings.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "recipes/bench/hot_paths.h"

namespace coppice {

namespace bench {
struct Ceilings;
}

struct MeasuredPath {
  const HotPath* path = nullptr;
  int64_t calls = 0;  // measured
  double median_s = 0, p20_s = 0, p80_s = 0;
  double gflops = 0, share_of_gemm = 0;  // of a path that computes; 0 of another
  double gbs = 0, share_of_copy = 0;     // of a path that moves; 0 of another
  double tokens_per_s = 0;               // 0: says nothing
  std::vector<double> predicted_s;       // by device_rows(); empty on a CPU
};

/// One call to warm up, then calls for `seconds`, at least three. InternalError for a result that is not finite.
MeasuredPath measure_path(const HotPath& path, const BenchShape& shape, double seconds, const bench::Ceilings& roof);

/// Lines of a file: what this run's ceilings are, then a path each.
nlohmann::ordered_json ceilings_json(const BenchShape& shape, const bench::Ceilings& roof);
nlohmann::ordered_json path_json(const MeasuredPath& measured);
/// The same for people.
std::string bench_table(const BenchShape& shape, const bench::Ceilings& roof, const std::vector<MeasuredPath>& paths);

}  // namespace coppice
