#include "src/tensors/shape.h"

#include <ATen/Context.h>
#include <malloc.h>
#include <sys/resource.h>

#include <cstdlib>

#include "src/base/errors.h"
#include "tests/tensors/compare.h"

using namespace coppice;

TEST_SUITE("unit") {
  TEST_CASE("shape_text, check_shape: names, sizes, wildcards") {
    CHECK(shape_text({4, 128, 512}) == "(4, 128, 512)");
    CHECK(shape_text({}) == "()");
    const at::Tensor tensor = at::zeros({4, 128});
    CHECK_NOTHROW(check_shape(tensor, {4, 128}, "x"));
    CHECK_NOTHROW(check_shape(tensor, {-1, 128}, "x"));
    CHECK_THROWS_WITH_AS(check_shape(tensor, {4, 127}, "x_ND"),
                         doctest::Contains("x_ND: got (4, 128), expected (4, 127)"), InternalError);
    CHECK_THROWS_AS(check_shape(tensor, {4}, "x"), InternalError);
    CHECK_THROWS_AS(check_shape(tensor, {4, 128, 1}, "x"), InternalError);
    CHECK_THROWS_AS(check_shape(at::Tensor(), {}, "x"), InternalError);
  }

  TEST_CASE("check_dense: element type, last stride and device, by name") {
    const auto check = [](const at::Tensor& tensor, at::ScalarType dtype = at::kFloat, at::Device device = at::kCPU) {
      check_dense(tensor, dtype, device, "x");
    };
    CHECK_NOTHROW(check(at::zeros({3, 4})));
    CHECK_NOTHROW(check(at::zeros({3, 8}).narrow(1, 1, 4)));
    CHECK_NOTHROW(check(at::zeros({4, 1}).t()));
    CHECK_NOTHROW(check(at::zeros({3, 4}, at::kBFloat16), at::kBFloat16));
    CHECK_THROWS_WITH_AS(check(at::zeros({3, 4}, at::kDouble)), doctest::Contains("x: got float64, expected float32"),
                         InternalError);
    CHECK_THROWS_WITH_AS(check(at::zeros({3, 4}), at::kBFloat16),
                         doctest::Contains("x: got float32, expected bfloat16"), InternalError);
    CHECK_THROWS_AS(check(at::zeros({3, 4}).t()), InternalError);
    CHECK_THROWS_AS(check(at::Tensor()), InternalError);
    CHECK_THROWS_WITH_AS(check(at::zeros({3, 4}), at::kFloat, at::Device(at::kCUDA, 1)),
                         doctest::Contains("x: on cpu, expected on cuda:1"), InternalError);
    CHECK_THROWS_WITH_AS(check(at::zeros({3, 4}, at::kMeta)),
                         "x is on meta, but coppice computes on cpu and cuda alone", DeviceError);
  }

  TEST_CASE("start_torch: threads, deterministic algorithms, memory that stays") {
    const int before = num_threads();
    start_torch(1);
    CHECK(num_threads() == 1);
    start_torch(0);
    CHECK(num_threads() >= 1);
    start_torch(before);
    CHECK(num_threads() == before);
    CHECK(at::globalContext().deterministicAlgorithms());
    CHECK((std::getenv("CUBLAS_WORKSPACE_CONFIG") != nullptr || !built_with_cuda()));
    CHECK(
        (at::globalContext().allowBF16ReductionCuBLAS() != at::CuBLASReductionOption::AllowReducedPrecisionWithSplitK));
#ifndef __SANITIZE_ADDRESS__  // whose allocator never hands out the same memory again soon
    const auto faults = [] {
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
      return usage.ru_minflt;
    };
    const auto touch = [] { at::empty({64 << 20}, at::kByte).fill_(1); };
    touch();
    const long first = faults();
    for (int i = 0; i < 4; ++i) touch();
    CHECK(faults() - first < 4 * 16384 / 4);  // 16384 pages each, were they fresh
#endif
  }
}
