// Embedding: checks and autograd; backward adds the incoming rows to the table's gradient. N = tokens, V = vocabulary,
// D = hidden size.
#include <torch/csrc/autograd/custom_function.h>

#include "src/tensors/kernels/embedding.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void gather_rows(const at::Tensor& token_N, const at::Tensor& table_VD, const at::Tensor& out_ND) {
  embedding_cpu({.token = token_N.const_data_ptr<int64_t>(),
                 .table = table_VD.const_data_ptr<float>(),
                 .out = out_ND.mutable_data_ptr<float>(),
                 .num_tokens = token_N.size(0),
                 .hidden_size = table_VD.size(1),
                 .table_row_stride = table_VD.stride(0)});
}

void scatter_add_rows(const at::Tensor& token_N, const at::Tensor& grad_ND, const at::Tensor& table_grad_VD) {
  embedding_backward_cpu({.token = token_N.const_data_ptr<int64_t>(),
                          .out_grad = grad_ND.const_data_ptr<float>(),
                          .table_grad = table_grad_VD.mutable_data_ptr<float>(),
                          .num_tokens = token_N.size(0),
                          .hidden_size = table_grad_VD.size(1),
                          .out_grad_row_stride = grad_ND.stride(0)});
}

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& token_N, const at::Tensor& table_VD,
                            const at::Tensor& table_grad_VD) {
    ctx->save_for_backward({token_N});
    ctx->saved_data["table_grad"] = given(table_grad_VD);
    ctx->saved_data["vocab_size"] = table_VD.size(0);
    at::Tensor out_ND = table_VD.new_empty({token_N.size(0), table_VD.size(1)});
    gather_rows(token_N, table_VD, out_ND);
    return out_ND;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    if (!ctx->needs_input_grad(1)) return {at::Tensor(), at::Tensor(), at::Tensor()};
    const at::Tensor grad_ND = rows_of(grads[0]);
    const at::Tensor token_N = ctx->get_saved_variables()[0];
    const at::Tensor table_grad_VD = ctx->saved_data["table_grad"].toTensor();
    if (table_grad_VD.defined()) {
      scatter_add_rows(token_N, grad_ND, table_grad_VD);
      return {at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::Tensor fresh_VD = grad_ND.new_zeros({ctx->saved_data["vocab_size"].toInt(), grad_ND.size(1)});
    scatter_add_rows(token_N, grad_ND, fresh_VD);
    return {at::Tensor(), fresh_VD, at::Tensor()};
  }
};

}  // namespace

at::Tensor embedding(const at::Tensor& token_N, const at::Tensor& table_VD, const at::Tensor& table_grad_VD,
                     int64_t ids_below) {
  check_shape(token_N, {-1}, "token_N");
  COPPICE_CHECK(token_N.scalar_type() == at::kLong && token_N.is_contiguous(), "token_N: expected contiguous int64");
  check_shape(table_VD, {-1, -1}, "table_VD");
  placement_of(table_VD, "table_VD");
  check_weight_grad(table_VD, table_grad_VD, "table_grad_VD");
  if (!ids_known(ids_below, table_VD.size(0)))
    for (const int64_t token : c10::IntArrayRef(token_N.const_data_ptr<int64_t>(), token_N.numel()))
      COPPICE_CHECK(token >= 0 && token < table_VD.size(0),
                    fmt::format("token {} outside the table of {} rows", token, table_VD.size(0)));
  return EmbeddingFunction::apply(token_N, table_VD, or_absent(table_grad_VD));
}

}  // namespace coppice
