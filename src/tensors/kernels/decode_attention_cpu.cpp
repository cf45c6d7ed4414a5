#include "src/tensors/kernels/decode_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "src/tensors/kernels/parallel_rows.h"
#include "src/tensors/kernels/vector_math.h"

namespace coppice {

namespace {

constexpr int64_t kPieceTokens = 64;  // keys and values of a piece stay in a core's cache while its heads read them

/// What a thread knows of one head: the weighted values [K], then the largest score and the sum.
struct Partial {
  float* sums;
  float* largest;
  float* total;
};
Partial partial_of(const DecodeAttentionParams& params, int64_t thread, int64_t head) {
  float* sums = params.scratch + (thread * params.num_heads + head) * (params.head_size + 2);
  return {sums, sums + params.head_size, sums + params.head_size + 1};
}

constexpr int64_t kBeside = 4;  // tokens whose sums run side by side

/// score[t] = scale * query . key[t].
COPPICE_INLINE void score_tokens(const float* __restrict query, const float* __restrict key, int64_t head_size,
                                 int64_t count, float scale, float* __restrict score) {
  int64_t t = 0;
  for (; t + kBeside <= count; t += kBeside) {
    const float* __restrict k0 = key + t * head_size;
    const float* __restrict k1 = k0 + head_size, * __restrict k2 = k1 + head_size, * __restrict k3 = k2 + head_size;
    float sum0 = 0.0f, sum1 = 0.0f, sum2 = 0.0f, sum3 = 0.0f;
#pragma omp simd reduction(+ : sum0, sum1, sum2, sum3)
    for (int64_t i = 0; i < head_size; ++i) {
      sum0 += query[i] * k0[i];
      sum1 += query[i] * k1[i];
      sum2 += query[i] * k2[i];
      sum3 += query[i] * k3[i];
    }
    score[t] = sum0 * scale, score[t + 1] = sum1 * scale, score[t + 2] = sum2 * scale, score[t + 3] = sum3 * scale;
  }
  for (; t < count; ++t) {
    const float* __restrict one = key + t * head_size;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < head_size; ++i) sum += query[i] * one[i];
    score[t] = sum * scale;
  }
}

/// sums += weight[t] * value[t] over all t.
COPPICE_INLINE void add_values(const float* __restrict weight, const float* __restrict value, int64_t head_size,
                               int64_t count, float* __restrict sums) {
  int64_t t = 0;
  for (; t + kBeside <= count; t += kBeside) {
    const float* __restrict v0 = value + t * head_size;
    const float* __restrict v1 = v0 + head_size, * __restrict v2 = v1 + head_size, * __restrict v3 = v2 + head_size;
    const float w0 = weight[t], w1 = weight[t + 1], w2 = weight[t + 2], w3 = weight[t + 3];
#pragma omp simd
    for (int64_t i = 0; i < head_size; ++i) sums[i] += (w0 * v0[i] + w1 * v1[i]) + (w2 * v2[i] + w3 * v3[i]);
  }
  for (; t < count; ++t) {
    const float* __restrict one = value + t * head_size;
    const float w = weight[t];
#pragma omp simd
    for (int64_t i = 0; i < head_size; ++i) sums[i] += w * one[i];
  }
}

/// Takes `count` tokens, at most kPieceTokens, of one head into its partial.
COPPICE_INLINE void take_piece(const float* query, const float* key, const float* value, int64_t count,
                               int64_t head_size, const Partial& partial) {
  float weight[kPieceTokens];
  score_tokens(query, key, head_size, count, 1.0f / std::sqrt(static_cast<float>(head_size)), weight);
  float largest = *partial.largest;
  for (int64_t t = 0; t < count; ++t) largest = std::max(largest, weight[t]);
  const float shrink = vector_exp(*partial.largest - largest);  // e^-infinity = 0 at the first piece
  for (int64_t t = 0; t < count; ++t) weight[t] = vector_exp(weight[t] - largest);
  float total = *partial.total * shrink;
  for (int64_t t = 0; t < count; ++t) total += weight[t];
  for (int64_t i = 0; i < head_size; ++i) partial.sums[i] *= shrink;
  add_values(weight, value, head_size, count, partial.sums);
  *partial.largest = largest;
  *partial.total = total;
}

/// Pieces [begin, end) of the text for all heads.
COPPICE_INLINE void pieces_loop(const DecodeAttentionParams& params, int64_t begin, int64_t end, int64_t thread) {
  const int64_t head_size = params.head_size, group = params.num_heads / params.num_kv_heads;
  for (int64_t head = 0; head < params.num_heads; ++head) {
    const Partial partial = partial_of(params, thread, head);
    std::fill_n(partial.sums, head_size, 0.0f);
    *partial.largest = -std::numeric_limits<float>::infinity();
    *partial.total = 0.0f;
  }
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t first = piece * kPieceTokens, count = std::min(kPieceTokens, params.num_tokens - first);
    for (int64_t head = 0; head < params.num_heads; ++head) {
      const int64_t place = (head / group * params.capacity + first) * head_size;
      take_piece(params.query + head * head_size, params.key + place, params.value + place, count, head_size,
                 partial_of(params, thread, head));
    }
  }
}
constexpr auto pieces = per_instruction_set<pieces_loop>;

}  // namespace

int64_t decode_attention_scratch(int64_t num_heads, int64_t head_size) {
  return omp_get_max_threads() * num_heads * (head_size + 2);
}

void decode_attention_cpu(const DecodeAttentionParams& params) {
  const int64_t num_pieces = (params.num_tokens + kPieceTokens - 1) / kPieceTokens;
  const auto threads = static_cast<int>(
      std::min<int64_t>(num_pieces, threads_for(params.num_tokens * params.num_heads * params.head_size)));
  parallel_rows(num_pieces, threads,
                [&](int64_t begin, int64_t end, int thread) { pieces(params, begin, end, thread); });
  for (int64_t head = 0; head < params.num_heads; ++head) {
    float* out = params.out + head * params.head_size;
    float largest = -std::numeric_limits<float>::infinity(), total = 0.0f;
    for (int64_t thread = 0; thread < threads; ++thread)
      largest = std::max(largest, *partial_of(params, thread, head).largest);
    std::fill_n(out, params.head_size, 0.0f);
    for (int64_t thread = 0; thread < threads; ++thread) {
      const Partial partial = partial_of(params, thread, head);
      const float weight = std::exp(*partial.largest - largest);
      total += *partial.total * weight;
      for (int64_t i = 0; i < params.head_size; ++i) out[i] += partial.sums[i] * weight;
    }
    for (int64_t i = 0; i < params.head_size; ++i) out[i] /= total;
  }
}

}  // namespace coppice
