// What programs that measure share: the seconds of a call, quantiles, and the ceilings of this very run.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "src/tensors/device.h"

namespace coppice::bench {

inline double seconds(const std::function<void()>& function) {
  const auto begin = std::chrono::steady_clock::now();
  function();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

inline double quantile(std::vector<double> values, double share) {
  std::ranges::sort(values);
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5)];
}

/// Returns when `result` is there: a device works on while the host goes its way.
inline void wait_for(const at::Tensor& result) {
  if (!result.device().is_cpu()) (void)result.flatten().narrow(0, 0, 1).to(at::kCPU);
}

struct Ceilings {
  double gemm_gflops = 0, copy_gbs = 0;
};

/// GEMM rate (1536 cubed; on a device 8192 cubed) and copy rate (64 MiB; on a device 1 GiB; bytes read + written) on
/// random data.
inline Ceilings measure_ceilings(const Placement& on) {
  const int64_t size = on.device.is_cpu() ? 1536 : 8192, bytes = int64_t{1} << (on.device.is_cpu() ? 26 : 30);
  const auto options = at::TensorOptions().device(on.device).dtype(on.compute);
  const at::Tensor a = at::randn({size, size}, options), b = at::randn({size, size}, options),
                   source = at::randn({bytes / a.element_size()}, options);
  at::Tensor product = at::empty_like(a), target = at::empty_like(source);
  const int calls = on.device.is_cpu() ? 1 : 10;  // one after the other, then one wait
  std::vector<double> gemm, copy;
  for (int turn = 0; turn < 9; ++turn) {
    gemm.push_back(seconds([&] {
      for (int call = 0; call < calls; ++call) at::mm_out(product, a, b);
      wait_for(product);
    }));
    copy.push_back(seconds([&] {
      for (int call = 0; call < calls; ++call) target.copy_(source);
      wait_for(target);
    }));
  }
  gemm.erase(gemm.begin(), gemm.begin() + 2), copy.erase(copy.begin(), copy.begin() + 2);
  const auto side = static_cast<double>(size);
  return {.gemm_gflops = calls * 2 * side * side * side / quantile(gemm, 0.5) / 1e9,
          .copy_gbs = calls * 2 * static_cast<double>(bytes) / quantile(copy, 0.5) / 1e9};
}

}  // namespace coppice::bench
