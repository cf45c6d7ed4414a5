#include "src/tensors/token_layout.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "src/base/errors.h"
#include "src/tensors/kernels/embedding.h"

namespace coppice {

namespace {

/// [count] or, of structs of several numbers, [count, numbers].
template <class T>
at::Tensor int32_tensor(const std::vector<T>& values) {
  static_assert(sizeof(T) % sizeof(int32_t) == 0);
  constexpr int64_t kNumbers = sizeof(T) / sizeof(int32_t);
  const auto count = std::ssize(values);
  const at::Tensor tensor =
      at::empty(kNumbers == 1 ? std::vector<int64_t>{count} : std::vector<int64_t>{count, kNumbers}, at::kInt);
  if (count > 0) std::memcpy(tensor.mutable_data_ptr<int32_t>(), values.data(), values.size() * sizeof(T));
  return tensor;
}

}  // namespace

TokenOrder TokenOrder::to(at::Device device) const {
  return {.row_N = row_N.to(device),
          .piece_X4 = piece_X4.to(device),
          .long_token_X4 = long_token_X4.to(device),
          .num_partials = num_partials};
}

TokenOrder make_token_order(const at::Tensor& token) {
  const at::Tensor host_N = token.cpu().contiguous();
  EmbeddingOrder order;
  make_embedding_order({host_N.const_data_ptr<int64_t>(), static_cast<size_t>(host_N.numel())}, order);
  const TokenOrder made{.row_N = int32_tensor(order.row),
                        .piece_X4 = int32_tensor(order.pieces),
                        .long_token_X4 = int32_tensor(order.long_tokens),
                        .num_partials = order.num_partials};
  return made.to(token.device());
}

DocumentBounds DocumentBounds::to(at::Device device) const {
  return {.bound_S = bound_S.to(device), .longest = longest};
}

DocumentBounds make_document_bounds(const at::Tensor& document_BT) {
  const at::Tensor host_BT = document_BT.cpu().contiguous();
  const int32_t* const document = host_BT.const_data_ptr<int32_t>();
  const int64_t num_tokens = host_BT.numel(), seq_len = host_BT.size(1);
  std::vector<int32_t> bounds;
  int64_t longest = 0;
  const auto begin_at = [&](int64_t n) {
    if (!bounds.empty()) longest = std::max(longest, n - bounds.back());
    bounds.push_back(static_cast<int32_t>(n));
  };
  for (int64_t n = 0; n < num_tokens; ++n)
    if (n % seq_len == 0 || document[n] != document[n - 1]) begin_at(n);
  begin_at(num_tokens);
  return DocumentBounds{.bound_S = int32_tensor(bounds), .longest = longest}.to(document_BT.device());
}

}  // namespace coppice
