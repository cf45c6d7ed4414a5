// QK-norm and RoPE: checks, autograd, registration. Out of place, because backward needs q and k before the norm. The
// CPU's loop copies the values, so that attention finds all three in one row; kernels leave them in the projection.
// Letters as in ops.h; P = (H + 2G) K, X = columns of some heads.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>

#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/kernels/qk_norm_rope.h"
#include "src/tensors/ops.h"
#include "src/tensors/transfers.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t find_largest_position(const at::Tensor& position_N) {
  const at::Tensor host_N = position_N.cpu();
  const c10::IntArrayRef positions(host_N.const_data_ptr<int64_t>(), host_N.numel());
  if (positions.empty()) return 0;
  const auto [lowest, highest] = std::minmax_element(positions.begin(), positions.end());
  COPPICE_CHECK(*lowest >= 0, fmt::format("position_N: {} is negative", *lowest));
  return *highest;
}

/// The table where an op reads it: on the CPU the host's own.
struct PlacedTable {
  std::shared_ptr<const RopeTable> host;
  at::Tensor cos_XK, sin_XK;
  const float* cos() const { return cos_XK.defined() ? elements<float>(cos_XK) : host->cos.data(); }
  const float* sin() const { return sin_XK.defined() ? elements<float>(sin_XK) : host->sin.data(); }
};
PlacedTable placed_table(const at::Tensor& frequencies, int64_t largest_position, at::Device device) {
  PlacedTable table{.host = rope_table({frequencies.const_data_ptr<double>(), static_cast<size_t>(frequencies.numel())},
                                       largest_position)};
  if (device.is_cpu()) return table;
  // Copied once and never freed, like the host's; holding that one keeps its address from being another table's.
  static std::mutex mutex;
  static auto* const tables = new std::map<std::pair<const RopeTable*, at::DeviceIndex>, PlacedTable>;
  const std::lock_guard lock(mutex);
  PlacedTable& placed = (*tables)[{table.host.get(), device.index()}];
  if (placed.host == nullptr) {
    const auto copied = [&](const std::vector<float>& values) {
      return sent(at::tensor(values, at::kFloat).view({-1, frequencies.numel()}), device);
    };
    placed = {.host = table.host, .cos_XK = copied(table.host->cos), .sin_XK = copied(table.host->sin)};
  }
  return placed;
}

struct QkNormRopeFunction : torch::autograd::Function<QkNormRopeFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& qkv_NP, const at::Tensor& q_weight,
                               const at::Tensor& q_weight_grad_K, const at::Tensor& k_weight,
                               const at::Tensor& k_weight_grad_K, const at::Tensor& position_N, int64_t num_heads,
                               int64_t num_kv_heads, double eps, const at::Tensor& frequencies,
                               int64_t largest_position) {
    const at::Tensor q_weight_K = given(q_weight), k_weight_K = given(k_weight);
    const int64_t num_tokens = qkv_NP.size(0), head_size = qkv_NP.size(1) / (num_heads + 2 * num_kv_heads),
                  q_columns = num_heads * head_size, kv_columns = num_kv_heads * head_size;
    const PlacedTable table = placed_table(frequencies, largest_position, qkv_NP.device());
    const bool copies_values = execution_of(qkv_NP) == Execution::cpu;
    const at::Tensor out_NX =
        at::empty({num_tokens, copies_values ? qkv_NP.size(1) : q_columns + kv_columns}, qkv_NP.options());
    with_elements_of(qkv_NP, [&]<class T>() {
      const QkNormRopeParams<T> params{.qkv = elements<T>(qkv_NP),
                                       .q_weight = elements<float>(q_weight_K),
                                       .k_weight = elements<float>(k_weight_K),
                                       .position = elements<int64_t>(position_N),
                                       .cos = table.cos(),
                                       .sin = table.sin(),
                                       .out = mutable_elements<T>(out_NX),
                                       .copies_values = copies_values,
                                       .num_tokens = num_tokens,
                                       .num_heads = num_heads,
                                       .num_kv_heads = num_kv_heads,
                                       .head_size = head_size,
                                       .qkv_row_stride = qkv_NP.stride(0),
                                       .eps = static_cast<float>(eps)};
      COPPICE_RUN(qkv_NP, qk_norm_rope, params);
    });
    ctx->save_for_backward({q_weight_K.defined() ? qkv_NP : at::Tensor(), q_weight_K, k_weight_K, position_N});
    ctx->saved_data["q_weight_grad"] = given(q_weight_grad_K);
    ctx->saved_data["k_weight_grad"] = given(k_weight_grad_K);
    ctx->saved_data["num_heads"] = num_heads;
    ctx->saved_data["num_kv_heads"] = num_kv_heads;
    ctx->saved_data["eps"] = eps;
    ctx->saved_data["frequencies"] = frequencies;
    ctx->saved_data["largest_position"] = largest_position;
    const at::Tensor values = copies_values ? out_NX : qkv_NP.detach();
    return {out_NX.narrow(1, 0, q_columns), out_NX.narrow(1, q_columns, kv_columns),
            values.narrow(1, q_columns + kv_columns, kv_columns)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &qkv_NP = saved[0], &q_weight_K = saved[1], &k_weight_K = saved[2], &position_N = saved[3];
    const int64_t num_heads = ctx->saved_data["num_heads"].toInt(),
                  num_kv_heads = ctx->saved_data["num_kv_heads"].toInt();
    const at::Tensor q_grad_NX = rows_of(grads[0]), k_grad_NX = rows_of(grads[1]), v_grad_NX = rows_of(grads[2]);
    const int64_t num_tokens = q_grad_NX.size(0), head_size = q_grad_NX.size(1) / num_heads;
    const PlacedTable table = placed_table(ctx->saved_data["frequencies"].toTensor(),
                                           ctx->saved_data["largest_position"].toInt(), q_grad_NX.device());
    const at::Tensor qkv_grad_NP =
        at::empty({num_tokens, (num_heads + 2 * num_kv_heads) * head_size}, q_grad_NX.options());
    const bool wants_weights = q_weight_K.defined() && (ctx->needs_input_grad(1) || ctx->needs_input_grad(3));
    std::optional<WeightGradient> q_weight_grad, k_weight_grad;
    at::Tensor partial;
    if (wants_weights) {
      q_weight_grad.emplace(q_weight_K, ctx->saved_data["q_weight_grad"].toTensor());
      k_weight_grad.emplace(k_weight_K, ctx->saved_data["k_weight_grad"].toTensor());
      partial = partial_sums(q_grad_NX, {2, qk_norm_rope_partial_rows(num_heads, num_kv_heads, head_size), head_size});
    }
    with_elements_of(q_grad_NX, [&]<class T>() {
      const QkNormRopeBackwardParams<T> params{
          .qkv = elements<T>(qkv_NP),
          .q_weight = elements<float>(q_weight_K),
          .k_weight = elements<float>(k_weight_K),
          .position = elements<int64_t>(position_N),
          .cos = table.cos(),
          .sin = table.sin(),
          .q_grad = elements<T>(q_grad_NX),
          .k_grad = elements<T>(k_grad_NX),
          .v_grad = elements<T>(v_grad_NX),
          .qkv_grad = mutable_elements<T>(qkv_grad_NP),
          .q_weight_grad = wants_weights ? mutable_elements<float>(q_weight_grad->buffer) : nullptr,
          .k_weight_grad = wants_weights ? mutable_elements<float>(k_weight_grad->buffer) : nullptr,
          .accumulate_weight_grad = wants_weights && q_weight_grad->accumulate,
          .weight_grad_partial = mutable_elements<float>(partial),
          .num_tokens = num_tokens,
          .num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .head_size = head_size,
          .qkv_row_stride = row_stride(qkv_NP),
          .q_grad_row_stride = q_grad_NX.stride(0),
          .k_grad_row_stride = k_grad_NX.stride(0),
          .v_grad_row_stride = v_grad_NX.stride(0),
          .eps = static_cast<float>(ctx->saved_data["eps"].toDouble())};
      COPPICE_RUN(q_grad_NX, qk_norm_rope_backward, params);
    });
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

AttentionInput qk_norm_rope(const at::Tensor& qkv_NP, const at::Tensor& q_weight_K, const at::Tensor& q_weight_grad_K,
                            const at::Tensor& k_weight_K, const at::Tensor& k_weight_grad_K,
                            const at::Tensor& position_N, int64_t num_heads, int64_t num_kv_heads, double eps,
                            const at::Tensor& frequencies, int64_t largest_position) {
  check_shape(qkv_NP, {-1, -1}, "qkv_NP");
  const Placement on = placement_of(qkv_NP, "qkv_NP");
  check_shape(position_N, {qkv_NP.size(0)}, "position_N");
  check_dense(position_N, at::kLong, on.device, "position_N");
  COPPICE_CHECK(position_N.is_contiguous(), "position_N: expected contiguous int64");
  const int64_t num_packed = num_heads + 2 * num_kv_heads;
  COPPICE_CHECK(
      num_heads > 0 && num_kv_heads > 0 && qkv_NP.size(1) % (2 * num_packed) == 0,
      fmt::format("qkv_NP: {} columns for {} + 2 * {} heads of an even size", qkv_NP.size(1), num_heads, num_kv_heads));
  check_width(qkv_NP, qkv_NP.size(1) / num_packed, kQkNormRopeMostHeadSize, "qkv_NP: head size");
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
  const variable_list outputs =
      QkNormRopeFunction::apply(qkv_NP, or_absent(q_weight_K), or_absent(q_weight_grad_K), or_absent(k_weight_K),
                                or_absent(k_weight_grad_K), position_N, num_heads, num_kv_heads, eps, frequencies,
                                largest_position < 0 ? find_largest_position(position_N) : largest_position);
  return {outputs[0], outputs[1], outputs[2]};
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def(
      "qk_norm_rope(Tensor qkv, Tensor? q_weight, Tensor? k_weight, Tensor position, int num_heads, int num_kv_heads, "
      "float eps, float rope_theta) -> Tensor",
      [](const at::Tensor& qkv, const std::optional<at::Tensor>& q_weight, const std::optional<at::Tensor>& k_weight,
         const at::Tensor& position, int64_t num_heads, int64_t num_kv_heads, double eps, double rope_theta) {
        const int64_t num_packed = num_heads + 2 * num_kv_heads;
        COPPICE_CHECK(qkv.dim() == 2 && num_packed > 0, "qkv: rows of packed heads expected");
        const AttentionInput in = qk_norm_rope(
            qkv, q_weight.value_or(at::Tensor()), at::Tensor(), k_weight.value_or(at::Tensor()), at::Tensor(), position,
            num_heads, num_kv_heads, eps, rope_frequencies(rope_theta, qkv.size(1) / num_packed));
        return at::cat({in.q_NX, in.k_NX, in.v_NX}, 1);
      });
}

}  // namespace coppice
