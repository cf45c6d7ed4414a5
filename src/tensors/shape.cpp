#include "src/tensors/shape.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>

#include "src/base/errors.h"
#include "src/base/threads.h"
#include "src/tensors/caching_allocator.h"
#include "src/tensors/device.h"

namespace coppice {

namespace {

/// Ordinary C++ memory stays with the process once freed, instead of going back to the system page by page.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_TOP_PAD, 1 << 20);
#endif
}

}  // namespace

std::string shape_text(c10::IntArrayRef sizes) {
  return fmt::format("({})", fmt::join(sizes.begin(), sizes.end(), ", "));
}

void check_shape(const at::Tensor& tensor, std::initializer_list<int64_t> expected, std::string_view name) {
  COPPICE_CHECK(tensor.defined(), fmt::format("{}: undefined tensor", name));
  const auto matches = [](int64_t got, int64_t wanted) { return wanted == -1 || got == wanted; };
  const c10::IntArrayRef sizes = tensor.sizes();
  if (std::equal(sizes.begin(), sizes.end(), expected.begin(), expected.end(), matches)) return;
  throw InternalError(fmt::format("{}: got {}, expected {}", name, shape_text(sizes),
                                  shape_text(c10::IntArrayRef(expected.begin(), expected.end()))));
}

void check_dense(const at::Tensor& tensor, at::ScalarType dtype, at::Device device, std::string_view name) {
  COPPICE_CHECK(tensor.defined(), fmt::format("{}: undefined tensor", name));
  COPPICE_CHECK(tensor.scalar_type() == dtype,
                fmt::format("{}: got {}, expected {}", name, dtype_name(tensor.scalar_type()), dtype_name(dtype)));
  COPPICE_CHECK(tensor.layout() == at::kStrided, fmt::format("{}: expected a dense tensor", name));
  const bool unit_stride = tensor.dim() == 0 || tensor.size(-1) <= 1 || tensor.stride(-1) == 1;
  COPPICE_CHECK(unit_stride,
                fmt::format("{}: strides {}, expected 1 along the last axis", name, shape_text(tensor.strides())));
  check_available(tensor.device(), name);
  COPPICE_CHECK(tensor.device() == device,
                fmt::format("{}: on {}, expected on {}", name, device_name(tensor.device()), device_name(device)));
}

void start_torch(int threads) {
  if (built_with_cuda())  // cuBLAS sizes its workspace by it, and repeats a product on several streams with this one
    setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*replace=*/0);
  keep_freed_memory();
  install_caching_allocator();                   // tensors
  at::set_num_threads(choose_threads(threads));  // sets OpenMP's and MKL's counts as well
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);  // its products add up in float32
  at::globalContext().setDeterministicFillUninitializedMemory(
      false);  // filling fresh tensors would cost a pass over each
}

int num_threads() { return at::get_num_threads(); }

}  // namespace coppice
