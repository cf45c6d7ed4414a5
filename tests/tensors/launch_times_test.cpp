#include "src/tensors/launch_times.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <string>

#include "src/base/errors.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/execution.h"
#include "src/tensors/ops.h"

using namespace coppice;

namespace {

/// SwiGLU and back under a mask.
void both_ways(const at::Tensor& gate_up, const at::Tensor& ffn_mask) { swiglu(gate_up, ffn_mask).sum().backward(); }

void check_launches(const at::TensorOptions& options) {
  const at::Tensor gate_up = at::ones({4, 16}, options.dtype(at::kBFloat16)).requires_grad_(),
                   mask = at::ones({8}, options).requires_grad_();
  LaunchTimes times;
  for (int call = 0; call < 3; ++call) both_ways(gate_up, mask);
  const std::vector<LaunchTime> launches = times.take();
  REQUIRE(launches.size() == 6);
  for (size_t i = 0; i < launches.size(); ++i) {
    CHECK(std::string(launches[i].kernel) == (i % 2 == 0 ? "swiglu" : "swiglu_backward"));
    CHECK(launches[i].seconds > 0);
  }
  CHECK(times.take().empty());
  both_ways(gate_up, mask);
  CHECK(times.take().size() == 2);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("launch_times: every launch while one lives, in its order, and no other") {
    const at::Tensor narrow = at::ones({4, 16}, at::kBFloat16), wide = at::ones({4, 16});
    swiglu(narrow, {});
    {
      LaunchTimes times;
      CHECK(times.take().empty());  // what was launched before
      swiglu(wide, {});
      CHECK(times.take().empty());  // the CPU's loops are no launch
      swiglu(narrow, {});           // left behind
      CHECK_THROWS_AS(LaunchTimes{}, InternalError);
    }
    swiglu(narrow, {});
    LaunchTimes times;
    CHECK(times.take().empty());
  }

  TEST_CASE("launch_times: backward's launches too, in the rehearsal") { check_launches(at::TensorOptions()); }

  TEST_CASE("launch_times: sums by kernel, in the order of first launches") {
    const std::vector<LaunchTime> launches = {{"b", 1}, {"a", 2}, {"b", 4}};
    const std::vector<KernelTime> sums = sums_by_kernel(launches);
    REQUIRE(sums.size() == 2);
    CHECK(std::string(sums[0].kernel) == "b");
    CHECK(sums[0].launches == 2);
    CHECK(sums[0].seconds == 5);
    CHECK(std::string(sums[1].kernel) == "a");
    CHECK(sums[1].seconds == 2);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("launch_times: on a device, by events of the stream that a kernel is launched on") {
    const at::Device cuda(at::kCUDA, 0);
    if (const std::string why = why_not_here(cuda); !why.empty()) {
      MESSAGE("skipped: " << why);
      CHECK(!why.empty());
      return;
    }
    check_launches(at::TensorOptions().device(cuda));
  }

  TEST_CASE("card_memory: tensors show in the peak, and a block that is free is not asked for again") {
    const at::Device cuda(at::kCUDA, 0);
    if (const std::string why = why_not_here(cuda); !why.empty()) {
      MESSAGE("skipped: " << why);
      CHECK(!why.empty());
      return;
    }
    constexpr int64_t kBytes = int64_t{64} << 20;
    const auto bytes = at::TensorOptions().device(cuda).dtype(at::kByte);
    { const at::Tensor first = at::empty({kBytes}, bytes); }
    start_card_peak(cuda);
    const CardMemory before = card_memory(cuda);
    { const at::Tensor again = at::empty({kBytes}, bytes); }
    const CardMemory after = card_memory(cuda);
    CHECK(after.allocations == before.allocations);
    CHECK(after.segments == before.segments);
    CHECK(after.peak_allocated >= before.peak_allocated + static_cast<double>(kBytes));
    CHECK(after.peak_held >= after.peak_allocated);
    CHECK(after.in_use > 0);
    CHECK_FALSE(describe_cuda_device(cuda).name.empty());
  }
}
