#include <algorithm>
#include <cstring>
#include <map>

#include "src/tensors/kernels/embedding.h"
#include "src/tensors/kernels/parallel_rows.h"

namespace coppice {

// ---- who adds up which rows ----

void make_embedding_order(std::span<const int64_t> token_N, EmbeddingOrder& order) {
  std::vector<uint64_t> keys(token_N.size());  // token, then row
  for (size_t n = 0; n < keys.size(); ++n) keys[n] = static_cast<uint64_t>(token_N[n]) << 32 | n;
  std::sort(keys.begin(), keys.end());
  order.row.resize(keys.size());
  order.pieces.clear();
  order.long_tokens.clear();
  order.num_partials = 0;
  for (size_t i = 0; i < keys.size(); ++i) order.row[i] = static_cast<int32_t>(keys[i] & 0xffffffff);
  for (size_t begin = 0, end = 0; begin < keys.size(); begin = end) {
    const uint64_t token = keys[begin] >> 32;
    while (end < keys.size() && keys[end] >> 32 == token) ++end;
    const bool is_long = end - begin > kEmbeddingPiece;
    const auto first_partial = static_cast<int32_t>(order.num_partials);
    for (size_t at = begin; at < end; at += kEmbeddingPiece)
      order.pieces.push_back({.token = static_cast<int32_t>(token),
                              .begin = static_cast<int32_t>(at),
                              .end = static_cast<int32_t>(std::min(at + kEmbeddingPiece, end)),
                              .partial = is_long ? static_cast<int32_t>(order.num_partials++) : -1});
    if (is_long)
      order.long_tokens.push_back({.token = static_cast<int32_t>(token),
                                   .begin = first_partial,
                                   .end = static_cast<int32_t>(order.num_partials)});
  }
}

// ---- the reference ----

void embedding_reference(const EmbeddingParams<float>& params) {
  for (int64_t n = 0; n < params.num_tokens; ++n)
    for (int64_t d = 0; d < params.hidden_size; ++d)
      params.out[n * params.hidden_size + d] = params.table[params.token[n] * params.table_row_stride + d];
}

void embedding_backward_reference(const EmbeddingBackwardParams<float>& params) {
  std::map<int64_t, std::vector<double>> sums;
  for (int64_t n = 0; n < params.num_tokens; ++n) {
    std::vector<double>& sum = sums[params.token[n]];
    sum.resize(static_cast<size_t>(params.hidden_size));
    for (int64_t d = 0; d < params.hidden_size; ++d)
      sum[static_cast<size_t>(d)] += params.out_grad[n * params.out_grad_row_stride + d];
  }
  for (const auto& [token, sum] : sums)
    for (int64_t d = 0; d < params.hidden_size; ++d) {
      float& grad = params.table_grad[token * params.hidden_size + d];
      grad = static_cast<float>(grad + sum[static_cast<size_t>(d)]);
    }
}

// ---- the quick path: forward shares out rows; backward shares out columns, so that every sum runs in the order of the
// text whatever the number of threads ----

void embedding_cpu(const EmbeddingParams<float>& params) {
  const int64_t width = params.hidden_size;
  parallel_rows(params.num_tokens, threads_for(params.num_tokens * width), [&](int64_t begin, int64_t end, int) {
    for (int64_t n = begin; n < end; ++n)
      std::memcpy(params.out + n * width, params.table + params.token[n] * params.table_row_stride,
                  sizeof(float) * width);
  });
}

void embedding_backward_cpu(const EmbeddingBackwardParams<float>& params) {
  const int64_t width = params.hidden_size;
  parallel_rows(width, threads_for(params.num_tokens * width), [&](int64_t begin, int64_t end, int) {
    for (int64_t n = 0; n < params.num_tokens; ++n) {
      const float* __restrict from = params.out_grad + n * params.out_grad_row_stride;
      float* __restrict to = params.table_grad + params.token[n] * width;
      for (int64_t d = begin; d < end; ++d) to[d] += from[d];
    }
  });
}

}  // namespace coppice
