// Shapes checked once, at the boundary of an op or module, with names; torch's global settings.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <string>
#include <string_view>

namespace coppice {

/// "(4, 128, 512)".
std::string shape_text(c10::IntArrayRef sizes);
/// Throws InternalError "hidden_BTD: got (..), expected (..)" unless sizes match; -1 matches any size.
void check_shape(const at::Tensor& tensor, std::initializer_list<int64_t> expected, std::string_view name);
/// Of this element type, dense with unit stride along the last axis (InternalError), on `device` (DeviceError where
/// this build cannot compute where it is).
void check_dense(const at::Tensor& tensor, at::ScalarType dtype, at::Device device, std::string_view name);

/// Settings of one run, recorded in manifests: thread count (0 = as choose_threads says, src/base/threads.h),
/// deterministic algorithms, memory that stays warm (caching_allocator.h). Call it before the first tensor.
void start_torch(int threads);
int num_threads();

}  // namespace coppice
