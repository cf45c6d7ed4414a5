// QK-norm and RoPE: checks, autograd, registration. Out of place, because backward needs q and k before the norm.
// Letters as in ops.h; P = (H + 2G) K.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/qk_norm_rope.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const float* pointer_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

int64_t find_largest_position(const at::Tensor& position_N) {
  const c10::IntArrayRef positions(position_N.const_data_ptr<int64_t>(), position_N.numel());
  if (positions.empty()) return 0;
  const auto [lowest, highest] = std::minmax_element(positions.begin(), positions.end());
  COPPICE_CHECK(*lowest >= 0, fmt::format("position_N: {} is negative", *lowest));
  return *highest;
}

std::span<const double> span_of(const at::Tensor& frequencies) {
  return {frequencies.const_data_ptr<double>(), static_cast<size_t>(frequencies.numel())};
}

struct QkNormRopeFunction : torch::autograd::Function<QkNormRopeFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv_NP, const at::Tensor& q_weight,
                            const at::Tensor& q_weight_grad_K, const at::Tensor& k_weight,
                            const at::Tensor& k_weight_grad_K, const at::Tensor& position_N, int64_t num_heads,
                            int64_t num_kv_heads, double eps, const at::Tensor& frequencies, int64_t largest_position) {
    const at::Tensor q_weight_K = given(q_weight), k_weight_K = given(k_weight);
    const int64_t head_size = qkv_NP.size(1) / (num_heads + 2 * num_kv_heads);
    const auto table = rope_table(span_of(frequencies), largest_position);
    at::Tensor out_NP = at::empty_like(qkv_NP, at::MemoryFormat::Contiguous);
    qk_norm_rope_cpu({.qkv = qkv_NP.const_data_ptr<float>(),
                      .q_weight = pointer_or_null(q_weight_K),
                      .k_weight = pointer_or_null(k_weight_K),
                      .position = position_N.const_data_ptr<int64_t>(),
                      .cos = table->cos.data(),
                      .sin = table->sin.data(),
                      .out = out_NP.mutable_data_ptr<float>(),
                      .num_tokens = qkv_NP.size(0),
                      .num_heads = num_heads,
                      .num_kv_heads = num_kv_heads,
                      .head_size = head_size,
                      .qkv_row_stride = qkv_NP.stride(0),
                      .eps = static_cast<float>(eps)});
    ctx->save_for_backward({q_weight_K.defined() ? qkv_NP : at::Tensor(), q_weight_K, k_weight_K, position_N});
    ctx->saved_data["q_weight_grad"] = given(q_weight_grad_K);
    ctx->saved_data["k_weight_grad"] = given(k_weight_grad_K);
    ctx->saved_data["num_heads"] = num_heads;
    ctx->saved_data["num_kv_heads"] = num_kv_heads;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["frequencies"] = frequencies;
    ctx->saved_data["largest_position"] = largest_position;
    return out_NP;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &qkv_NP = saved[0], &q_weight_K = saved[1], &k_weight_K = saved[2], &position_N = saved[3];
    const int64_t num_heads = ctx->saved_data["num_heads"].toInt(),
                  num_kv_heads = ctx->saved_data["num_kv_heads"].toInt();
    const at::Tensor out_grad_NP = rows_of(grads[0]);
    const int64_t head_size = out_grad_NP.size(1) / (num_heads + 2 * num_kv_heads);
    const auto table =
        rope_table(span_of(ctx->saved_data["frequencies"].toTensor()), ctx->saved_data["largest_position"].toInt());
    const float* const out_grad = out_grad_NP.const_data_ptr<float>();
    const at::Tensor qkv_grad_NP = at::empty_like(out_grad_NP, at::MemoryFormat::Contiguous);
    const bool wants_weights = q_weight_K.defined() && (ctx->needs_input_grad(1) || ctx->needs_input_grad(3));
    std::optional<WeightGradient> q_weight_grad, k_weight_grad;
    if (wants_weights) {
      q_weight_grad.emplace(q_weight_K, ctx->saved_data["q_weight_grad"].toTensor());
      k_weight_grad.emplace(k_weight_K, ctx->saved_data["k_weight_grad"].toTensor());
    }
    qk_norm_rope_backward_cpu(
        {.qkv = pointer_or_null(qkv_NP),
         .q_weight = pointer_or_null(q_weight_K),
         .k_weight = pointer_or_null(k_weight_K),
         .position = position_N.const_data_ptr<int64_t>(),
         .cos = table->cos.data(),
         .sin = table->sin.data(),
         .q_grad = out_grad,
         .k_grad = out_grad + num_heads * head_size,
         .v_grad = out_grad + (num_heads + num_kv_heads) * head_size,
         .qkv_grad = qkv_grad_NP.mutable_data_ptr<float>(),
         .q_weight_grad = wants_weights ? q_weight_grad->buffer.mutable_data_ptr<float>() : nullptr,
         .k_weight_grad = wants_weights ? k_weight_grad->buffer.mutable_data_ptr<float>() : nullptr,
         .accumulate_weight_grad = wants_weights && q_weight_grad->accumulate,
         .num_tokens = out_grad_NP.size(0),
         .num_heads = num_heads,
         .num_kv_heads = num_kv_heads,
         .head_size = head_size,
         .qkv_row_stride = qkv_NP.defined() ? qkv_NP.stride(0) : 0,
         .q_grad_row_stride = out_grad_NP.stride(0),
         .k_grad_row_stride = out_grad_NP.stride(0),
         .v_grad_row_stride = out_grad_NP.stride(0),
         .eps = static_cast<float>(ctx->saved_data["eps"].toDouble())});
    variable_list input_grads(11);  // one per argument of forward
    input_grads[0] = qkv_grad_NP;
    if (wants_weights) input_grads[1] = q_weight_grad->for_autograd();
    if (wants_weights) input_grads[3] = k_weight_grad->for_autograd();
    return input_grads;
  }
};

}  // namespace

at::Tensor rope_frequencies(double rope_theta, int64_t head_size) {
  COPPICE_CHECK(head_size > 0 && head_size % 2 == 0, fmt::format("heads of {}, expected an even size", head_size));
  at::Tensor frequencies = at::empty({head_size / 2}, at::kDouble);
  double* out = frequencies.mutable_data_ptr<double>();
  for (int64_t i = 0; i < head_size / 2; ++i)
    out[i] = std::pow(rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_size));
  return frequencies;
}

at::Tensor qk_norm_rope(const at::Tensor& qkv_NP, const at::Tensor& q_weight_K, const at::Tensor& q_weight_grad_K,
                        const at::Tensor& k_weight_K, const at::Tensor& k_weight_grad_K, const at::Tensor& position_N,
                        int64_t num_heads, int64_t num_kv_heads, double eps, const at::Tensor& frequencies,
                        int64_t largest_position) {
  check_shape(qkv_NP, {-1, -1}, "qkv_NP");
  const Placement on = placement_of(qkv_NP, "qkv_NP");
  check_shape(position_N, {qkv_NP.size(0)}, "position_N");
  COPPICE_CHECK(position_N.scalar_type() == at::kLong && position_N.is_contiguous(),
                "position_N: expected contiguous int64");
  const int64_t num_packed = num_heads + 2 * num_kv_heads;
  COPPICE_CHECK(
      num_heads > 0 && num_kv_heads > 0 && qkv_NP.size(1) % (2 * num_packed) == 0,
      fmt::format("qkv_NP: {} columns for {} + 2 * {} heads of an even size", qkv_NP.size(1), num_heads, num_kv_heads));
  check_shape(frequencies, {qkv_NP.size(1) / num_packed / 2}, "frequencies");
  check_dense(frequencies, at::kDouble, at::kCPU, "frequencies");
  COPPICE_CHECK(q_weight_K.defined() == k_weight_K.defined(), "q and k are normalised together or not at all");
  COPPICE_CHECK(q_weight_grad_K.defined() == k_weight_grad_K.defined(), "both weight gradients, or neither");
  if (q_weight_K.defined()) {
    check_shape(q_weight_K, {qkv_NP.size(1) / num_packed}, "q_weight_K");
    check_shape(k_weight_K, {qkv_NP.size(1) / num_packed}, "k_weight_K");
    check_dense(q_weight_K, at::kFloat, on.device, "q_weight_K");
    check_dense(k_weight_K, at::kFloat, on.device, "k_weight_K");
    check_weight_grad(q_weight_K, q_weight_grad_K, "q_weight_grad_K");
    check_weight_grad(k_weight_K, k_weight_grad_K, "k_weight_grad_K");
  }
  return QkNormRopeFunction::apply(qkv_NP, or_absent(q_weight_K), or_absent(q_weight_grad_K), or_absent(k_weight_K),
                                   or_absent(k_weight_grad_K), position_N, num_heads, num_kv_heads, eps, frequencies,
                                   largest_position < 0 ? find_largest_position(position_N) : largest_position);
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def(
      "qk_norm_rope(Tensor qkv, Tensor? q_weight, Tensor? k_weight, Tensor position, int num_heads, int num_kv_heads, "
      "float eps, float rope_theta) -> Tensor",
      [](const at::Tensor& qkv, const std::optional<at::Tensor>& q_weight, const std::optional<at::Tensor>& k_weight,
         const at::Tensor& position, int64_t num_heads, int64_t num_kv_heads, double eps, double rope_theta) {
        const int64_t num_packed = num_heads + 2 * num_kv_heads;
        COPPICE_CHECK(qkv.dim() == 2 && num_packed > 0, "qkv: rows of packed heads expected");
        return qk_norm_rope(qkv, q_weight.value_or(at::Tensor()), at::Tensor(), k_weight.value_or(at::Tensor()),
                            at::Tensor(), position, num_heads, num_kv_heads, eps,
                            rope_frequencies(rope_theta, qkv.size(1) / num_packed));
      });
}

}  // namespace coppice
