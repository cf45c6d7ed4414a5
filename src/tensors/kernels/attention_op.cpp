// Causal scaled-dot-product attention: checks, choice, autograd, registration. B sequences, T tokens, H query heads, G
// key/value heads, K head size, X = columns of some heads, P = (H + 2G) K.
#include <ATen/detail/CUDAHooksInterface.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <atomic>

#include "src/tensors/attention.h"
#include "src/tensors/kernels/attention.h"
#include "src/tensors/kernels/op_checks.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::atomic<AttentionMode> attention_mode{AttentionMode::repeatable};

/// Place in kAttentionBackends. The libraries' kernels take heads of a multiple of 8 up to 256, cuDNN's whole
/// sequences.
size_t choose_backend(const Placement& on, int64_t head_size, bool documents) {
  if (on.device.is_cpu()) return 0;
  if (on.compute == at::kFloat || head_size % 8 != 0 || head_size > 256) return 1;
  return attention_mode == AttentionMode::repeatable || documents ? 2 : 3;
}

struct CausalAttentionFunction : torch::autograd::Function<CausalAttentionFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_NX, const at::Tensor& k_NX,
                            const at::Tensor& v_NX, const AttentionShape& shape, const Documents& documents,
                            size_t backend) {
    const AttentionOutput output = kAttentionBackends.at(backend).forward({q_NX, k_NX, v_NX}, shape, documents);
    const AttentionState& state = output.state;
    ctx->save_for_backward({q_NX, k_NX, v_NX, output.out_NX, state.logsumexp, state.seed, state.offset,
                            documents.document_BT, documents.bounds.bound_S});
    ctx->saved_data["longest"] = documents.bounds.longest;
    ctx->saved_data["batch"] = shape.batch;
    ctx->saved_data["num_heads"] = shape.num_heads;
    ctx->saved_data["num_kv_heads"] = shape.num_kv_heads;
    ctx->saved_data["backend"] = static_cast<int64_t>(backend);
    return output.out_NX;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto number = [&](const char* name) { return ctx->saved_data[name].toInt(); };
    const AttentionInput of_inputs =
        kAttentionBackends.at(static_cast<size_t>(number("backend")))
            .backward(
                {saved[0], saved[1], saved[2]},
                {.batch = number("batch"), .num_heads = number("num_heads"), .num_kv_heads = number("num_kv_heads")},
                {.document_BT = saved[7], .bounds = {.bound_S = saved[8], .longest = number("longest")}},
                {.out_NX = saved[3], .state = {.logsumexp = saved[4], .seed = saved[5], .offset = saved[6]}},
                rows_of(grads[0]));
    return {of_inputs.q_NX, of_inputs.k_NX, of_inputs.v_NX, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void set_attention_mode(AttentionMode mode) { attention_mode = mode; }

std::string_view attention_backend(const Placement& on, int64_t head_size, bool documents) {
  return kAttentionBackends.at(choose_backend(on, head_size, documents)).name;
}

std::string attention_text(const Placement& on, int64_t head_size, bool documents) {
  const std::string_view backend = attention_backend(on, head_size, documents);
  if (backend != "cudnn") return std::string(backend);
  const long version = at::detail::getCUDAHooks().versionRuntimeCuDNN();  // NOLINT: 91900 is 9.19.0
  return fmt::format("cudnn {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

AttentionInput split_heads(const at::Tensor& qkv_NP, int64_t num_heads, int64_t num_kv_heads) {
  check_shape(qkv_NP, {-1, -1}, "qkv_NP");
  const int64_t num_packed = num_heads + 2 * num_kv_heads;
  COPPICE_CHECK(num_heads > 0 && num_kv_heads > 0 && qkv_NP.size(1) % num_packed == 0,
                fmt::format("qkv_NP: {} columns for {} + 2 * {} heads", qkv_NP.size(1), num_heads, num_kv_heads));
  const int64_t head_size = qkv_NP.size(1) / num_packed, q_columns = num_heads * head_size,
                kv_columns = num_kv_heads * head_size;
  return {qkv_NP.narrow(1, 0, q_columns), qkv_NP.narrow(1, q_columns, kv_columns),
          qkv_NP.narrow(1, q_columns + kv_columns, kv_columns)};
}

at::Tensor causal_attention(const AttentionInput& in, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
                            const at::Tensor& document_BT, const DocumentBounds& bounds) {
  check_shape(in.q_NX, {-1, -1}, "q_NX");
  const Placement on = placement_of(in.q_NX, "q_NX");
  const int64_t num_tokens = in.q_NX.size(0), columns = in.q_NX.size(1);
  COPPICE_CHECK(batch > 0 && num_tokens % batch == 0, fmt::format("q_NX: {} rows for {} sequences", num_tokens, batch));
  COPPICE_CHECK(num_kv_heads > 0 && num_heads > 0 && num_heads % num_kv_heads == 0 && columns % num_heads == 0,
                fmt::format("q_NX: {} columns for {} heads in {} groups", columns, num_heads, num_kv_heads));
  for (const auto& [rows_NX, name] : {std::pair{&in.k_NX, "k_NX"}, {&in.v_NX, "v_NX"}}) {
    check_shape(*rows_NX, {num_tokens, columns / num_heads * num_kv_heads}, name);
    check_dense(*rows_NX, on.compute, on.device, name);
  }
  if (document_BT.defined()) {
    check_shape(document_BT, {batch, num_tokens / batch}, "document_BT");
    check_dense(document_BT, at::kInt, on.device, "document_BT");
  }
  if (bounds.defined()) {
    check_shape(bounds.bound_S, {-1}, "bounds.bound_S");
    check_dense(bounds.bound_S, at::kInt, on.device, "bounds.bound_S");
  }
  const size_t backend = choose_backend(on, columns / num_heads, document_BT.defined());
  Documents documents;
  if (document_BT.defined() && kAttentionBackends.at(backend).takes_bounds)
    documents.bounds = bounds.defined() ? bounds : make_document_bounds(document_BT);
  else
    documents.document_BT = document_BT;
  return CausalAttentionFunction::apply(
      in.q_NX, in.k_NX, in.v_NX, AttentionShape{.batch = batch, .num_heads = num_heads, .num_kv_heads = num_kv_heads},
      documents, backend);
}

TORCH_LIBRARY_FRAGMENT(coppice, m) {
  m.def("causal_attention(Tensor qkv, int batch, int num_heads, int num_kv_heads, Tensor? document=None) -> Tensor",
        [](const at::Tensor& qkv, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
           const std::optional<at::Tensor>& document) {
          return causal_attention(split_heads(qkv, num_heads, num_kv_heads), batch, num_heads, num_kv_heads,
                                  document.value_or(at::Tensor()));
        });
}

}  // namespace coppice
