// QK-norm and RoPE. K/16 threads take a head (the next power of two), each of them eight elements of its lower half and
// their partners, so that a rotation needs no neighbour and a head's sums are a few shuffles. Forward: one block a
// token (and group of heads, where they are many). Backward: kQkNormRopeBlocks blocks take tokens in turn and rebuild
// rstd from the projection; the weights' gradients stay in registers over a block's tokens, the heads of a block join
// in order through shared memory, the blocks in order by a second launch. Bytes of a row in bf16: forward 4 (H + G) K,
// with values 4 G K more; backward 6 (H + G) K + 4 G K, without norm 4 (H + 2 G) K. Beside them, from the cache: a row
// of the table a head, 4 K, and forward a weight a head, 4 K.
#include "src/tensors/kernels/qk_norm_rope.h"

#include "src/tensors/kernels/add_up_rows.h"
#include "src/tensors/kernels/float_packs.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

struct Layout {
  QkNormRopeShares shares;
  int half;  // K / 2
  int num_heads;
  int num_rotated;
  float inverse_head_size;
};

/// The head of a thread and its elements: slot s holds kVec from at(s) on, and their partners K/2 further. A thread
/// without a head has no slot, and takes part in sums with zeros.
template <int kVec>
struct Head {
  int local;  // its number in the block
  int number;
  bool is_query;
  int first, stride, count;
  __device__ explicit Head(const Layout& layout)
      : local(static_cast<int>(threadIdx.x) >> layout.shares.log2_lanes),
        number(static_cast<int>(blockIdx.y) * layout.shares.heads + local),
        is_query(number < layout.num_heads),
        first((static_cast<int>(threadIdx.x) & ((1 << layout.shares.log2_lanes) - 1)) * kVec),
        stride(kVec << layout.shares.log2_lanes),
        count(local < layout.shares.heads && number < layout.num_rotated ? layout.half : 0) {}
  __device__ __forceinline__ int at(int slot) const { return first + slot * stride; }
  __device__ __forceinline__ bool has(int slot) const { return at(slot) < count; }
};

/// The sum over the threads of a head, equal bits in all of them.
template <class V>
__device__ __forceinline__ V head_sum(V value, int log2_lanes COPPICE_CALLER) {
  COPPICE_UNROLL
  for (int bit = 4; bit >= 0; --bit)
    if (bit < log2_lanes) value = value + shuffle_xor(value, 1 << bit COPPICE_FROM_CALLER);
  return value;
}

/// to[0..count) = from[0..count), shared out among the blocks of a token.
template <int kVec, class T>
__device__ __forceinline__ void copy_values(T* to, const T* from, int64_t count) {
  const int stride = static_cast<int>(gridDim.y * blockDim.x) * kVec;
  for (int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kVec; i < count; i += stride)
    copy_pack<kVec>(to + i, from + i);
}

template <class T, int kVec>
__global__ void __launch_bounds__(kQkNormRopeThreads) qk_norm_rope_kernel(QkNormRopeParams<T> params, Layout layout) {
  constexpr int kSlots = kQkNormRopePairs / kVec;
  const Head<kVec> head(layout);
  const int64_t n = blockIdx.x, head_offset = head.number * params.head_size;
  const int64_t num_values = params.num_kv_heads * params.head_size,
                num_rotated = layout.num_rotated * params.head_size;
  const T* const x = params.qkv + n * params.qkv_row_stride;
  T* const y = params.out + n * (num_rotated + (params.copies_values ? num_values : 0));
  const int64_t table_row = params.position[n] * layout.half;
  const bool normalises = params.q_weight != nullptr;
  const float* const weight = head.is_query ? params.q_weight : params.k_weight;
  Pack<float, kVec> left[kSlots], right[kSlots];
  float squares = 0.0f;
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    left[slot] = load_floats<kVec>(x, head_offset + head.at(slot), head.has(slot));
    right[slot] = load_floats<kVec>(x, head_offset + layout.half + head.at(slot), head.has(slot));
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) squares += left[slot][i] * left[slot][i] + right[slot][i] * right[slot][i];
  }
  const float rstd =
      normalises ? rsqrtf(head_sum(squares, layout.shares.log2_lanes) * layout.inverse_head_size + params.eps) : 1.0f;
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    if (!head.has(slot)) continue;
    const int at = head.at(slot);
    const auto cos = load_pack<kVec>(params.cos + table_row + at), sin = load_pack<kVec>(params.sin + table_row + at);
    if (normalises) {
      const auto left_weight = load_pack<kVec>(weight + at), right_weight = load_pack<kVec>(weight + layout.half + at);
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) {
        left[slot][i] *= rstd * left_weight[i];
        right[slot][i] *= rstd * right_weight[i];
      }
    }
    Pack<float, kVec> left_out, right_out;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) {
      left_out[i] = left[slot][i] * cos[i] - right[slot][i] * sin[i];
      right_out[i] = right[slot][i] * cos[i] + left[slot][i] * sin[i];
    }
    store_floats(y + head_offset + at, left_out);
    store_floats(y + head_offset + layout.half + at, right_out);
  }
  if (params.copies_values) copy_values<kVec>(y + num_rotated, x + num_rotated, num_values);
}

/// What a head's norm needs of all its elements.
struct HeadSums {
  float squares;  // of x
  float along;    // g * weight * x
  __device__ __forceinline__ HeadSums operator+(const HeadSums& other) const {
    return {squares + other.squares, along + other.along};
  }
};

/// One row of the partial gradients for each weight: the heads of the block, one after the other.
template <class T, int kVec, int kSlots>
__device__ __forceinline__ void join_heads(const QkNormRopeBackwardParams<T>& params, const Layout& layout,
                                           const Head<kVec>& head, const Pack<float, kVec> (&left)[kSlots],
                                           const Pack<float, kVec> (&right)[kSlots]) {
  float* const shared = static_cast<float*>(dynamic_shared());  // (heads, K)
  const int head_size = 2 * layout.half;
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    if (!head.has(slot)) continue;
    float* const to = shared + head.local * head_size + head.at(slot);
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) {
      to[i] = left[slot][i];
      to[layout.half + i] = right[slot][i];
    }
  }
  __syncthreads();
  const int begin = static_cast<int>(blockIdx.y) * layout.shares.heads,
            end = begin + layout.shares.heads < layout.num_rotated ? begin + layout.shares.heads : layout.num_rotated;
  const int64_t row = blockIdx.x * int64_t{gridDim.y} + blockIdx.y, num_rows = int64_t{gridDim.x} * gridDim.y;
  for (int i = static_cast<int>(threadIdx.x); i < 2 * head_size; i += static_cast<int>(blockDim.x)) {
    const bool of_queries = i < head_size;
    const int column = of_queries ? i : i - head_size;
    float sum = 0.0f;
    for (int number = begin; number < end; ++number)
      if ((number < layout.num_heads) == of_queries) sum += shared[(number - begin) * head_size + column];
    store_pack(params.weight_grad_partial + ((of_queries ? 0 : num_rows) + row) * head_size + column,
               Pack<float, 1>{{sum}});
  }
}

template <class T, int kVec>
__global__ void __launch_bounds__(kQkNormRopeThreads)
    qk_norm_rope_backward_kernel(QkNormRopeBackwardParams<T> params, Layout layout) {
  constexpr int kSlots = kQkNormRopePairs / kVec;
  const Head<kVec> head(layout);
  const int64_t head_offset = head.number * params.head_size;
  const int64_t num_values = params.num_kv_heads * params.head_size,
                num_rotated = layout.num_rotated * params.head_size;
  const bool normalises = params.q_weight != nullptr;
  const T* const y_grads =
      head.is_query ? params.q_grad + head_offset : params.k_grad + (head_offset - layout.num_heads * params.head_size);
  const int64_t y_grad_row_stride = head.is_query ? params.q_grad_row_stride : params.k_grad_row_stride;
  const float* const weight = head.is_query ? params.q_weight : params.k_weight;
  // One element at a time they would not fit into registers, and are read once more.
  constexpr bool kHolds = kVec > 1;
  Pack<float, kVec> left_weight[kHolds ? kSlots : 1], right_weight[kHolds ? kSlots : 1];
  const auto load_weight = [&](int slot, int to) {
    const bool there = normalises && head.has(slot);
    left_weight[to] = load_floats<kVec>(weight, head.at(slot), there);
    right_weight[to] = load_floats<kVec>(weight, layout.half + head.at(slot), there);
  };
  COPPICE_UNROLL
  for (int slot = 0; kHolds && slot < kSlots; ++slot) load_weight(slot, slot);
  Pack<float, kVec> left_weight_grad[kSlots]{}, right_weight_grad[kSlots]{};
  for (int64_t n = blockIdx.x; n < params.num_tokens; n += gridDim.x) {
    const T* const y_grad = y_grads + n * y_grad_row_stride;
    const int64_t x_offset = n * params.qkv_row_stride + head_offset;
    T* const row_grad = params.qkv_grad + n * (num_rotated + num_values);
    const int64_t table_row = params.position[n] * layout.half;
    Pack<float, kVec> left[kSlots], right[kSlots], left_x[kSlots], right_x[kSlots];
    HeadSums sums{};
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) {
      const bool there = head.has(slot);
      const int at = head.at(slot);
      const int held = kHolds ? slot : 0;
      if constexpr (!kHolds) load_weight(slot, held);
      const auto left_grad = load_floats<kVec>(y_grad, at, there),
                 right_grad = load_floats<kVec>(y_grad, layout.half + at, there),
                 cos = load_floats<kVec>(params.cos, table_row + at, there),
                 sin = load_floats<kVec>(params.sin, table_row + at, there);
      left_x[slot] = load_floats<kVec>(params.qkv, x_offset + at, there && normalises);
      right_x[slot] = load_floats<kVec>(params.qkv, x_offset + layout.half + at, there && normalises);
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) {
        left[slot][i] = left_grad[i] * cos[i] + right_grad[i] * sin[i];
        right[slot][i] = right_grad[i] * cos[i] - left_grad[i] * sin[i];
        sums.squares += left_x[slot][i] * left_x[slot][i] + right_x[slot][i] * right_x[slot][i];
        sums.along += left[slot][i] * left_weight[held][i] * left_x[slot][i] +
                      right[slot][i] * right_weight[held][i] * right_x[slot][i];
      }
    }
    if (normalises) {
      sums = head_sum(sums, layout.shares.log2_lanes);
      const float rstd = rsqrtf(sums.squares * layout.inverse_head_size + params.eps);
      const float pull = rstd * rstd * (sums.along * layout.inverse_head_size);
      COPPICE_UNROLL
      for (int slot = 0; slot < kSlots; ++slot) {
        const int held = kHolds ? slot : 0;
        if constexpr (!kHolds) load_weight(slot, held);
        COPPICE_UNROLL
        for (int i = 0; i < kVec; ++i) {
          left_weight_grad[slot][i] += left[slot][i] * (left_x[slot][i] * rstd);
          right_weight_grad[slot][i] += right[slot][i] * (right_x[slot][i] * rstd);
          left[slot][i] = rstd * (left[slot][i] * left_weight[held][i] - left_x[slot][i] * pull);
          right[slot][i] = rstd * (right[slot][i] * right_weight[held][i] - right_x[slot][i] * pull);
        }
      }
    }
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) {
      if (!head.has(slot)) continue;
      store_floats(row_grad + head_offset + head.at(slot), left[slot]);
      store_floats(row_grad + head_offset + layout.half + head.at(slot), right[slot]);
    }
    copy_values<kVec>(row_grad + num_rotated, params.v_grad + n * params.v_grad_row_stride, num_values);
  }
  if (params.q_weight_grad != nullptr || params.k_weight_grad != nullptr)
    join_heads(params, layout, head, left_weight_grad, right_weight_grad);
}

template <class Params>
Layout layout_of(const Params& params) {
  const int64_t num_rotated = params.num_heads + params.num_kv_heads;
  return {.shares = qk_norm_rope_shares(num_rotated, params.head_size),
          .half = static_cast<int>(params.head_size / 2),
          .num_heads = static_cast<int>(params.num_heads),
          .num_rotated = static_cast<int>(num_rotated),
          .inverse_head_size = 1.0f / static_cast<float>(params.head_size)};
}

int threads_of(const QkNormRopeShares& shares) {
  return ((shares.heads << shares.log2_lanes) + kWarpThreads - 1) / kWarpThreads * kWarpThreads;
}

/// What both directions move in packs beside activations.
template <class Params>
bool weights_and_table_in_packs(const Params& params) {
  return params.head_size % 16 == 0 && starts_at_packs(params.q_weight, 0) && starts_at_packs(params.k_weight, 0) &&
         starts_at_packs(params.cos, 0) && starts_at_packs(params.sin, 0);
}

}  // namespace

template <class T>
int qk_norm_rope(const QkNormRopeParams<T>& params, CUstream_st* stream) {
  if (params.num_tokens == 0) return 0;
  const Layout layout = layout_of(params);
  const bool packs = weights_and_table_in_packs(params) && starts_at_packs(params.qkv, params.qkv_row_stride) &&
                     starts_at_packs(params.out, 0);
  return launch(packs ? qk_norm_rope_kernel<T, kQkNormRopePairs> : qk_norm_rope_kernel<T, 1>,
                {params.num_tokens, layout.shares.head_groups}, threads_of(layout.shares), 0, stream, params, layout);
}

template <class T>
int qk_norm_rope_backward(const QkNormRopeBackwardParams<T>& params, CUstream_st* stream) {
  const Layout layout = layout_of(params);
  const bool packs = weights_and_table_in_packs(params) && starts_at_packs(params.qkv, params.qkv_row_stride) &&
                     starts_at_packs(params.q_grad, params.q_grad_row_stride) &&
                     starts_at_packs(params.k_grad, params.k_grad_row_stride) &&
                     starts_at_packs(params.v_grad, params.v_grad_row_stride) && starts_at_packs(params.qkv_grad, 0);
  const bool wants_weights = params.q_weight_grad != nullptr || params.k_weight_grad != nullptr;
  const int64_t shared_bytes =
      wants_weights ? layout.shares.heads * params.head_size * static_cast<int64_t>(sizeof(float)) : 0;
  const int error = launch(
      packs ? qk_norm_rope_backward_kernel<T, kQkNormRopePairs> : qk_norm_rope_backward_kernel<T, 1>,
      {kQkNormRopeBlocks, layout.shares.head_groups}, threads_of(layout.shares), shared_bytes, stream, params, layout);
  const int64_t num_rows = kQkNormRopeBlocks * layout.shares.head_groups;
  const auto add_up = [&](const float* partial, float* weight_grad) {
    if (weight_grad == nullptr) return 0;
    return add_up_rows({.rows = partial,
                        .sum = weight_grad,
                        .num_rows = static_cast<int>(num_rows),
                        .num_columns = params.head_size,
                        .accumulate = params.accumulate_weight_grad},
                       stream);
  };
  if (error != 0 || !wants_weights) return error;
  const int error_of_queries = add_up(params.weight_grad_partial, params.q_weight_grad);
  if (error_of_queries != 0) return error_of_queries;
  return add_up(params.weight_grad_partial + num_rows * params.head_size, params.k_weight_grad);
}

template int qk_norm_rope(const QkNormRopeParams<float>&, CUstream_st*);
template int qk_norm_rope(const QkNormRopeParams<Bf16>&, CUstream_st*);
template int qk_norm_rope_backward(const QkNormRopeBackwardParams<float>&, CUstream_st*);
template int qk_norm_rope_backward(const QkNormRopeBackwardParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
