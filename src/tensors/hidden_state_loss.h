// How far a student's hidden states are from a teacher's, where kernels compute. On the CPU in float32 the same is a
// composition of ATen's operations (student/targets.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <string_view>

namespace coppice {

/// Sum over live rows of 1 - cos(student, teacher) ("cosine") or of the mean over D of (student - teacher)^2 ("mse"): a
/// float32 scalar. Rows [N, D], one element type; live_N bool. The student alone gets a gradient. Nothing waits for a
/// device.
at::Tensor sum_hidden_state_loss(std::string_view kind, const at::Tensor& student_ND, const at::Tensor& teacher_ND,
                                 const at::Tensor& live_N);

}  // namespace coppice
