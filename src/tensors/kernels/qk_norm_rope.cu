// QK-norm and RoPE. K/16 threads take a head (the next power of two), each of them eight elements of its lower half and
// their partners, so that a rotation needs no neighbour and a head's sums are a few shuffles. kQkNormRopeBlocks blocks
// (and as many for each further group of heads) take tokens in turn. Forward: the next token is under way while this
// one is turned. Backward: rstd is rebuilt from the projection; the weights' gradients stay in registers over a block's
// tokens, the heads of a block join in order through shared memory, the blocks in order by a second launch. Bytes of a
// row in bf16: forward 4 (H + G) K, with values 4 G K more; backward 6 (H + G) K + 4 G K, without norm 4 (H + 2 G) K.
// Beside them, from the cache: a row of the table a head, 4 K, and forward a weight a head, 4 K.
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

constexpr int kPairs = kQkNormRopePairs, kElements = 2 * kPairs;
using Run = Pack<float, kPairs>;  // neighbours in a row

/// Elements of a head: a run of its lower half, and their partners.
struct Pairs {
  Run left, right;
  __device__ __forceinline__ float& operator[](int i) { return i < kPairs ? left[i] : right[i - kPairs]; }
  __device__ __forceinline__ float operator[](int i) const { return i < kPairs ? left[i] : right[i - kPairs]; }
};

/// The same as they lie in memory: loads that are under way together, before the first is needed.
template <class T, int kVec>
struct LoadedRun {
  Pack<T, kVec> packs[kPairs / kVec];
  __device__ __forceinline__ Run floats() const {
    Run run;
    COPPICE_UNROLL
    for (int i = 0; i < kPairs; i += kVec) {
      const auto pack = floats_of(packs[i / kVec]);
      COPPICE_UNROLL
      for (int j = 0; j < kVec; ++j) run[i + j] = pack[j];
    }
    return run;
  }
};
template <class T, int kVec>
struct LoadedPairs {
  LoadedRun<T, kVec> left, right;
  __device__ __forceinline__ Pairs floats() const { return {left.floats(), right.floats()}; }
};
/// Of a row of the table.
template <int kVec>
struct LoadedAngles {
  LoadedRun<float, kVec> cos, sin;
};

/// The head of a thread and its share of it: kPairs pairs from `first` on, moved kVec at a time. `count` are left of
/// the half there; what lies behind them counts as zero and is not stored.
template <int kVec>
struct Head {
  int local;   // its number in the block
  int number;  // in the token
  bool is_query;
  int half, first, count;
  __device__ explicit Head(const Layout& layout)
      : local(static_cast<int>(threadIdx.x) >> layout.shares.log2_lanes),
        number(static_cast<int>(blockIdx.y) * layout.shares.heads + local),
        is_query(number < layout.num_heads),
        half(layout.half),
        first((static_cast<int>(threadIdx.x) & ((1 << layout.shares.log2_lanes) - 1)) * kPairs),
        count(local < layout.shares.heads && number < layout.num_rotated ? half - first : 0) {}

  /// The thread's run of from[offset..offset + K/2), zeros where it is not `wanted`; `from` may be null then.
  template <class T>
  __device__ __forceinline__ LoadedRun<T, kVec> load_run(const T* from, int64_t offset,
                                                         bool wanted = true COPPICE_CALLER) const {
    LoadedRun<T, kVec> run;
    COPPICE_UNROLL
    for (int i = 0; i < kPairs; i += kVec)
      run.packs[i / kVec] = load_or_zero<kVec>(from, offset + first + i, wanted && i < count COPPICE_FROM_CALLER);
    return run;
  }
  template <class T>
  __device__ __forceinline__ void store_run(T* to, const Run& run COPPICE_CALLER) const {
    COPPICE_UNROLL
    for (int i = 0; i < kPairs; i += kVec) {
      if (i >= count) continue;
      Pack<float, kVec> pack;
      COPPICE_UNROLL
      for (int j = 0; j < kVec; ++j) pack[j] = run[i + j];
      store_floats(to + first + i, pack COPPICE_FROM_CALLER);
    }
  }

  /// The thread's pairs of the head from[offset..offset + K).
  template <class T>
  __device__ __forceinline__ LoadedPairs<T, kVec> load(const T* from, int64_t offset,
                                                       bool wanted = true COPPICE_CALLER) const {
    return {load_run(from, offset, wanted COPPICE_FROM_CALLER),
            load_run(from, offset + half, wanted COPPICE_FROM_CALLER)};
  }
  /// The thread's angles at a position.
  template <class Params>
  __device__ __forceinline__ LoadedAngles<kVec> load_angles(const Params& params,
                                                            int64_t position COPPICE_CALLER) const {
    return {load_run(params.cos, position * half, true COPPICE_FROM_CALLER),
            load_run(params.sin, position * half, true COPPICE_FROM_CALLER)};
  }
  template <class T>
  __device__ __forceinline__ void store(T* to, const Pairs& pairs COPPICE_CALLER) const {
    store_run(to, pairs.left COPPICE_FROM_CALLER);
    store_run(to + half, pairs.right COPPICE_FROM_CALLER);
  }
};

/// The sum over the threads of a head, equal bits in all of them.
template <class V>
__device__ __forceinline__ V head_sum(V value, int log2_lanes COPPICE_CALLER) {
  COPPICE_UNROLL
  for (int bit = 4; bit >= 0; --bit)
    if (bit < log2_lanes) value = value + shuffle_xor(value, 1 << bit COPPICE_FROM_CALLER);
  return value;
}

/// x becomes z = x * rstd * weight.
__device__ __forceinline__ void normalise(Pairs& x, const Pairs& weight, const Layout& layout, float eps) {
  float squares = 0.0f;
  COPPICE_UNROLL
  for (int i = 0; i < kElements; ++i) squares += x[i] * x[i];
  const float rstd = rsqrtf(head_sum(squares, layout.shares.log2_lanes) * layout.inverse_head_size + eps);
  COPPICE_UNROLL
  for (int i = 0; i < kElements; ++i) x[i] *= rstd * weight[i];
}

/// What a head's norm needs of all its elements.
struct HeadSums {
  float squares;  // of x
  float along;    // g * weight * x
  __device__ __forceinline__ HeadSums operator+(const HeadSums& other) const {
    return {squares + other.squares, along + other.along};
  }
};

/// The gradient of z becomes that of x; the weight's is added to weight_grad.
__device__ __forceinline__ void normalise_backward(Pairs& grad, Pairs& weight_grad, const Pairs& x, const Pairs& weight,
                                                   const Layout& layout, float eps) {
  HeadSums sums{};
  COPPICE_UNROLL
  for (int i = 0; i < kElements; ++i) {
    sums.squares += x[i] * x[i];
    sums.along += grad[i] * weight[i] * x[i];
  }
  sums = head_sum(sums, layout.shares.log2_lanes);
  const float rstd = rsqrtf(sums.squares * layout.inverse_head_size + eps);
  const float pull = rstd * rstd * (sums.along * layout.inverse_head_size);
  COPPICE_UNROLL
  for (int i = 0; i < kElements; ++i) {
    weight_grad[i] += grad[i] * (x[i] * rstd);
    grad[i] = rstd * (grad[i] * weight[i] - x[i] * pull);
  }
}

/// Turns every pair by its angle: 1 is the forward's turn, -1 its opposite.
template <int kVec>
__device__ __forceinline__ void rotate(Pairs& pairs, const LoadedAngles<kVec>& angles, float turn) {
  const Run cos = angles.cos.floats(), sin = angles.sin.floats();
  COPPICE_UNROLL
  for (int i = 0; i < kPairs; ++i) {
    const float left = pairs.left[i], right = pairs.right[i], sine = turn * sin[i];
    pairs.left[i] = left * cos[i] - right * sine;
    pairs.right[i] = right * cos[i] + left * sine;
  }
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
  const Head<kVec> head(layout);
  const int64_t head_offset = head.number * params.head_size;
  const int64_t num_values = params.num_kv_heads * params.head_size,
                num_rotated = layout.num_rotated * params.head_size,
                y_row_stride = num_rotated + (params.copies_values ? num_values : 0);
  const bool normalises = params.q_weight != nullptr;
  const T* const from = params.qkv + head_offset;
  const auto load_x = [&](int64_t n) { return head.load(from, n * params.qkv_row_stride, n < params.num_tokens); };
  const auto position_of = [&](int64_t n) { return n < params.num_tokens ? params.position[n] : 0; };
  auto x = load_x(blockIdx.x);
  int64_t position = position_of(blockIdx.x);
  for (int64_t n = blockIdx.x; n < params.num_tokens; n += gridDim.x) {
    T* const y = params.out + n * y_row_stride;
    const auto angles = head.load_angles(params, position);
    Pairs pairs = x.floats();
    x = load_x(n + gridDim.x);
    position = position_of(n + gridDim.x);
    if (normalises)
      normalise(pairs, head.load(head.is_query ? params.q_weight : params.k_weight, 0).floats(), layout, params.eps);
    rotate(pairs, angles, 1.0f);
    head.store(y + head_offset, pairs);
    if (params.copies_values)
      copy_values<kVec>(y + num_rotated, params.qkv + n * params.qkv_row_stride + num_rotated, num_values);
  }
}

/// One row of the partial gradients for each weight: the heads of the block, one after the other.
template <int kVec, class T>
__device__ __forceinline__ void join_heads(const QkNormRopeBackwardParams<T>& params, const Layout& layout,
                                           const Head<kVec>& head, const Pairs& weight_grad) {
  float* const shared = static_cast<float*>(dynamic_shared());  // (heads, K)
  const int head_size = 2 * head.half;
  COPPICE_UNROLL
  for (int i = 0; i < kPairs; ++i) {
    if (i >= head.count) continue;
    float* const to = shared + head.local * head_size + head.first + i;
    to[0] = weight_grad.left[i];
    to[head.half] = weight_grad.right[i];
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
  const Head<kVec> head(layout);
  const int64_t head_offset = head.number * params.head_size;
  const int64_t num_values = params.num_kv_heads * params.head_size,
                num_rotated = layout.num_rotated * params.head_size;
  const T* const y_grad = head.is_query ? params.q_grad : params.k_grad;
  const int64_t y_grad_row_stride = head.is_query ? params.q_grad_row_stride : params.k_grad_row_stride,
                y_grad_offset = (head.is_query ? head.number : head.number - layout.num_heads) * params.head_size;
  const bool normalises = params.q_weight != nullptr;
  const Pairs weight = head.load(head.is_query ? params.q_weight : params.k_weight, 0, normalises).floats();
  Pairs weight_grad{};
  const auto position_of = [&](int64_t n) { return n < params.num_tokens ? params.position[n] : 0; };
  int64_t position = position_of(blockIdx.x);  // a token ahead: a row of the table can be asked for at once
  for (int64_t n = blockIdx.x; n < params.num_tokens; n += gridDim.x) {
    T* const row_grad = params.qkv_grad + n * (num_rotated + num_values);
    const auto y = head.load(y_grad, n * y_grad_row_stride + y_grad_offset);
    const auto angles = head.load_angles(params, position);
    const auto x = head.load(params.qkv, n * params.qkv_row_stride + head_offset, normalises);
    position = position_of(n + gridDim.x);
    copy_values<kVec>(row_grad + num_rotated, params.v_grad + n * params.v_grad_row_stride, num_values);
    Pairs grad = y.floats();
    rotate(grad, angles, -1.0f);
    if (normalises) normalise_backward(grad, weight_grad, x.floats(), weight, layout, params.eps);
    head.store(row_grad + head_offset, grad);
  }
  if (params.q_weight_grad != nullptr || params.k_weight_grad != nullptr) join_heads(params, layout, head, weight_grad);
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
  return launch(
      packs ? qk_norm_rope_kernel<T, kPairs> : qk_norm_rope_kernel<T, 1>,
      {params.num_tokens < kQkNormRopeBlocks ? params.num_tokens : kQkNormRopeBlocks, layout.shares.head_groups},
      threads_of(layout.shares), 0, stream, params, layout);
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
  const int error = launch(packs ? qk_norm_rope_backward_kernel<T, kPairs> : qk_norm_rope_backward_kernel<T, 1>,
                           {kQkNormRopeBlocks, layout.shares.head_groups}, threads_of(layout.shares), shared_bytes,
                           stream, params, layout);
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
