// How fast this machine runs the hot paths, as shares of its own ceilings.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "recipes/bench/hot_paths.h"
#include "src/tensors/launch_times.h"

namespace coppice {

namespace bench {
struct Ceilings;
}

/// Of a path that is a whole step, in its measured calls.
struct MeasuredStep {
  int64_t allocations = 0;  // that the allocator asked the system or the driver for
  int64_t segments = 0;     // of a device, that the allocator holds more than before
  // of a device
  double mfu_causal = 0, mfu_full = 0;       // of the data sheet's rate; 0: of a card that is not known
  double peak_allocated = 0, peak_held = 0;  // bytes, of torch's allocator
  double card_in_use = 0;                    // bytes, as the driver counts them, by all processes
  double planned_bytes = 0;                  // as `coppice plan --device` counts them
  std::vector<KernelTime> kernels = {};      // of our own, in one more step
};

struct MeasuredPath {
  const HotPath* path = nullptr;
  int64_t calls = 0;  // measured
  double median_s = 0, p20_s = 0, p80_s = 0;
  double gflops = 0, share_of_gemm = 0;  // of a path that computes; 0 of another
  double gbs = 0, share_of_copy = 0;     // of a path that moves; 0 of another
  double tokens_per_s = 0;               // 0: says nothing
  std::vector<double> predicted_s;       // by device_rows(); empty on a CPU
  std::optional<MeasuredStep> step = {};
};

/// One call to warm up, of a whole step four, then calls for `seconds`, at least three. InternalError for a result that
/// is not finite.
MeasuredPath measure_path(const HotPath& path, const BenchShape& shape, double seconds, const bench::Ceilings& roof);

/// Lines of a file: what this run's ceilings are, then a path each.
nlohmann::ordered_json ceilings_json(const BenchShape& shape, const bench::Ceilings& roof);
nlohmann::ordered_json path_json(const MeasuredPath& measured);
/// The same for people.
std::string ceilings_text(const BenchShape& shape, const bench::Ceilings& roof);
std::string bench_table(const BenchShape& shape, const bench::Ceilings& roof, const std::vector<MeasuredPath>& paths);

}  // namespace coppice
