// Embedding: checks and autograd; backward adds the incoming rows to the table's gradient. N = tokens, V = vocabulary,
// D = hidden size.
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "src/tensors/kernels/embedding.h"
#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/op_checks.h"
#include "src/tensors/ops.h"

namespace coppice {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void gather_rows(const at::Tensor& token_N, const at::Tensor& table_VD, const at::Tensor& out_ND) {
  with_elements_of(table_VD, [&]<class T>() {
    const EmbeddingParams<T> params{.token = elements<int64_t>(token_N),
                                    .table = elements<T>(table_VD),
                                    .out = mutable_elements<T>(out_ND),
                                    .num_tokens = token_N.size(0),
                                    .hidden_size = table_VD.size(1),
                                    .table_row_stride = table_VD.stride(0)};
    COPPICE_RUN(table_VD, embedding, params);
  });
}

/// The order is not for the CPU.
void scatter_add_rows(const at::Tensor& token_N, const TokenOrder& order, const at::Tensor& grad_ND,
                      const at::Tensor& table_grad_VD) {
  const auto pieces = [](const at::Tensor& piece_X4) {
    return reinterpret_cast<const EmbeddingPiece*>(elements<int32_t>(piece_X4));
  };
  const auto count = [](const at::Tensor& piece_X4) { return piece_X4.defined() ? piece_X4.size(0) : 0; };
  const at::Tensor partial = partial_sums(grad_ND, {order.num_partials, grad_ND.size(1)});
  with_elements_of(grad_ND, [&]<class T>() {
    const EmbeddingBackwardParams<T> params{.token = elements<int64_t>(token_N),
                                            .row = elements<int32_t>(order.row_N),
                                            .pieces = pieces(order.piece_X4),
                                            .long_tokens = pieces(order.long_token_X4),
                                            .partial = mutable_elements<float>(partial),
                                            .out_grad = elements<T>(grad_ND),
                                            .table_grad = mutable_elements<float>(table_grad_VD),
                                            .num_tokens = token_N.size(0),
                                            .num_pieces = count(order.piece_X4),
                                            .num_long_tokens = count(order.long_token_X4),
                                            .hidden_size = table_grad_VD.size(1),
                                            .out_grad_row_stride = grad_ND.stride(0)};
    COPPICE_RUN(grad_ND, embedding_backward, params);
  });
}

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& token_N, const at::Tensor& table_VD,
                            const at::Tensor& table_grad_VD, const TokenOrder& order) {
    ctx->save_for_backward({token_N, order.row_N, order.piece_X4, order.long_token_X4});
    ctx->saved_data["num_partials"] = order.num_partials;
    ctx->saved_data["table_grad"] = given(table_grad_VD);
    ctx->saved_data["vocab_size"] = table_VD.size(0);
    at::Tensor out_ND = table_VD.new_empty({token_N.size(0), table_VD.size(1)});
    gather_rows(token_N, table_VD, out_ND);
    return out_ND;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list input_grads(4);  // one per argument of forward
    if (!ctx->needs_input_grad(1)) return input_grads;
    const at::Tensor grad_ND = rows_of(grads[0]);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& token_N = saved[0];
    TokenOrder order{.row_N = saved[1],
                     .piece_X4 = saved[2],
                     .long_token_X4 = saved[3],
                     .num_partials = ctx->saved_data["num_partials"].toInt()};
    if (!order.defined() && execution_of(grad_ND) != Execution::cpu) order = make_token_order(token_N);
    at::Tensor table_grad_VD = ctx->saved_data["table_grad"].toTensor();
    if (!table_grad_VD.defined())
      input_grads[1] = table_grad_VD =
          at::zeros({ctx->saved_data["vocab_size"].toInt(), grad_ND.size(1)}, grad_ND.options().dtype(at::kFloat));
    scatter_add_rows(token_N, order, grad_ND, table_grad_VD);
    return input_grads;
  }
};

/// What the backward kernels take on trust: the order of these tokens, where they are.
void check_order(const TokenOrder& order, int64_t num_tokens, at::Device device) {
  check_shape(order.row_N, {num_tokens}, "order.row_N");
  check_shape(order.piece_X4, {-1, 4}, "order.piece_X4");
  check_shape(order.long_token_X4, {-1, 4}, "order.long_token_X4");
  for (const auto& [tensor, name] : {std::pair{&order.row_N, "order.row_N"},
                                     {&order.piece_X4, "order.piece_X4"},
                                     {&order.long_token_X4, "order.long_token_X4"}}) {
    check_dense(*tensor, at::kInt, device, name);
    COPPICE_CHECK(tensor->is_contiguous(), fmt::format("{}: expected contiguous", name));
  }
}

}  // namespace

at::Tensor embedding(const at::Tensor& token_N, const at::Tensor& table_VD, const at::Tensor& table_grad_VD,
                     int64_t ids_below, const TokenOrder& order) {
  check_shape(token_N, {-1}, "token_N");
  check_shape(table_VD, {-1, -1}, "table_VD");
  check_dense(token_N, at::kLong, placement_of(table_VD, "table_VD").device, "token_N");
  COPPICE_CHECK(token_N.is_contiguous(), "token_N: expected contiguous int64");
  if (order.defined()) check_order(order, token_N.size(0), table_VD.device());
  check_weight_grad(table_VD, table_grad_VD, "table_grad_VD");
  if (!ids_known(ids_below, table_VD.size(0))) {
    const at::Tensor host_N = token_N.cpu();
    for (const int64_t token : c10::IntArrayRef(host_N.const_data_ptr<int64_t>(), host_N.numel()))
      COPPICE_CHECK(token >= 0 && token < table_VD.size(0),
                    fmt::format("token {} outside the table of {} rows", token, table_VD.size(0)));
  }
  return EmbeddingFunction::apply(token_N, table_VD, or_absent(table_grad_VD), order);
}

}  // namespace coppice
