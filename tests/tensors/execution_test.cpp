#include "src/tensors/execution.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "src/tensors/executor/executor.h"
#include "src/tensors/ops.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("execution_of: float32 on the CPU has its loops, bfloat16 and a test's float32 the kernels") {
    const at::Tensor wide = at::ones({2, 8}), narrow = wide.to(at::kBFloat16);
    CHECK((execution_of(wide) == Execution::cpu));
    CHECK((execution_of(narrow) == Execution::emulated));
    {
      const EmulatedFloat32 emulated;
      CHECK((execution_of(wide) == Execution::emulated));
      CHECK((execution_of(narrow) == Execution::emulated));
    }
    CHECK((execution_of(wide) == Execution::cpu));
  }

  TEST_CASE("execution_of: an op launches kernels where it says so, and nowhere else") {
    const at::Tensor wide = at::ones({2, 8}), narrow = wide.to(at::kBFloat16), weight = at::ones({8});
    const auto launches = [&](const at::Tensor& x) {
      executor::reset_counts();
      residual_rms_norm(x, {}, weight, {}, 1e-5);
      return executor::counts().launches;
    };
    CHECK(launches(wide) == 0);
    CHECK(launches(narrow) == 1);
    const EmulatedFloat32 emulated;
    CHECK(launches(wide) == 1);
  }
}
