// Causal scaled-dot-product attention on the packed projection, by ATen's flash kernel for the CPU, forward and
// backward. B sequences, T tokens, H query heads, G key/value heads, R = H / G, K head size, P = (H + 2G) K.
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <limits>

#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Heads {
  at::Tensor q_BHTK, k_BHTK, v_BHTK;
};

/// q as a view of the packed rows; k and v repeated for each query head of their group.
Heads unpack(const at::Tensor& qkv_NP, int64_t batch, int64_t num_heads, int64_t num_kv_heads) {
  const int64_t head_size = qkv_NP.size(1) / (num_heads + 2 * num_kv_heads);
  const at::Tensor heads_BTXK = qkv_NP.unflatten(0, {batch, -1}).unflatten(2, {-1, head_size});
  const auto part = [&](int64_t first, int64_t count) { return heads_BTXK.narrow(2, first, count).transpose(1, 2); };
  const auto repeated = [&](const at::Tensor& part_BGTK) {
    return num_heads == num_kv_heads ? part_BGTK : part_BGTK.repeat_interleave(num_heads / num_kv_heads, 1);
  };
  return {part(0, num_heads), repeated(part(num_heads, num_kv_heads)),
          repeated(part(num_heads + num_kv_heads, num_kv_heads))};
}

/// 0 where query and key belong to one document, -infinity elsewhere; [B, 1, T, T]. Undefined stays undefined.
std::optional<at::Tensor> document_bias(const at::Tensor& document_BT) {
  if (!document_BT.defined()) return std::nullopt;
  const at::Tensor other = document_BT.unsqueeze(2) != document_BT.unsqueeze(1);
  return at::zeros(other.sizes(), at::TensorOptions().dtype(at::kFloat))
      .masked_fill_(other, -std::numeric_limits<float>::infinity())
      .unsqueeze(1);
}

struct CausalAttentionFunction : torch::autograd::Function<CausalAttentionFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv_NP, int64_t batch, int64_t num_heads,
                            int64_t num_kv_heads, const at::Tensor& document) {
    const at::Tensor document_BT = given(document);
    const Heads heads = unpack(qkv_NP, batch, num_heads, num_kv_heads);
    const auto [out_BHTK, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
        heads.q_BHTK, heads.k_BHTK, heads.v_BHTK, 0.0, /*is_causal=*/true, document_bias(document_BT));
    ctx->save_for_backward({qkv_NP, document_BT, out_BHTK, logsumexp});
    ctx->saved_data["batch"] = batch;
    ctx->saved_data["num_heads"] = num_heads;
    ctx->saved_data["num_kv_heads"] = num_kv_heads;
    return out_BHTK.transpose(1, 2).reshape({qkv_NP.size(0), -1});
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &qkv_NP = saved[0], &document_BT = saved[1], &out_BHTK = saved[2], &logsumexp = saved[3];
    const int64_t batch = ctx->saved_data["batch"].toInt(), num_heads = ctx->saved_data["num_heads"].toInt();
    const int64_t num_kv_heads = ctx->saved_data["num_kv_heads"].toInt();
    const Heads heads = unpack(qkv_NP, batch, num_heads, num_kv_heads);
    const at::Tensor out_grad_BHTK =
        rows_of(grads[0]).unflatten(0, {batch, -1}).unflatten(2, {num_heads, -1}).transpose(1, 2);
    const auto [q_grad, k_grad, v_grad] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        out_grad_BHTK, heads.q_BHTK, heads.k_BHTK, heads.v_BHTK, out_BHTK, logsumexp, 0.0, /*is_causal=*/true,
        document_bias(document_BT));
    at::Tensor qkv_grad_NP = at::empty_like(qkv_NP, at::MemoryFormat::Contiguous);
    const at::Tensor packed_BTXK =
        qkv_grad_NP.unflatten(0, {batch, -1}).unflatten(2, {num_heads + 2 * num_kv_heads, -1});
    const auto summed = [&](const at::Tensor& grad_BHTK) {
      return num_heads == num_kv_heads ? grad_BHTK : grad_BHTK.unflatten(1, {num_kv_heads, -1}).sum(2);
    };
    packed_BTXK.narrow(2, 0, num_heads).copy_(q_grad.transpose(1, 2));
    packed_BTXK.narrow(2, num_heads, num_kv_heads).copy_(summed(k_grad).transpose(1, 2));
    packed_BTXK.narrow(2, num_heads + num_kv_heads, num_kv_heads).copy_(summed(v_grad).transpose(1, 2));
    return {qkv_grad_NP, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor causal_attention(const at::Tensor& qkv_NP, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
                            const at::Tensor& document_BT) {
  check_shape(qkv_NP, {-1, -1}, "qkv_NP");
  placement_of(qkv_NP, "qkv_NP");
  COPPICE_CHECK(batch > 0 && qkv_NP.size(0) % batch == 0,
                fmt::format("qkv_NP: {} rows for {} sequences", qkv_NP.size(0), batch));
  COPPICE_CHECK(
      num_kv_heads > 0 && num_heads % num_kv_heads == 0 && qkv_NP.size(1) % (num_heads + 2 * num_kv_heads) == 0,
      fmt::format("qkv_NP: {} columns for {} + 2 * {} heads", qkv_NP.size(1), num_heads, num_kv_heads));
  if (document_BT.defined()) check_shape(document_BT, {batch, qkv_NP.size(0) / batch}, "document_BT");
  return CausalAttentionFunction::apply(qkv_NP, batch, num_heads, num_kv_heads, or_absent(document_BT));
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def("causal_attention(Tensor qkv, int batch, int num_heads, int num_kv_heads, Tensor? document=None) -> Tensor",
        [](const at::Tensor& qkv, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
           const std::optional<at::Tensor>& document) {
          return causal_attention(qkv, batch, num_heads, num_kv_heads, document.value_or(at::Tensor()));
        });
}

}  // namespace coppice
