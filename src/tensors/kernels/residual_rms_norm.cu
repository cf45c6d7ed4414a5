// Residual add and RMSNorm. Forward: one block a row, which it keeps in registers; the sum of squares is that of the
// residual as it is stored. Backward: kResidualRmsNormBlocks blocks take rows in turn, one reduction a row; the
// weight's gradient stays in registers over a block's rows and is joined in the order of the blocks by a second launch.
// Bytes of a row in bf16: forward 8 D + 4, and the weight, 4 D, from the cache; backward 8 D. Beside them, a block of
// the backward: 4 D for the weight, 8 D for the partial row of its gradient, written and read.
#include "src/tensors/kernels/residual_rms_norm.h"

#include "src/tensors/kernels/add_up_rows.h"
#include "src/tensors/kernels/float_packs.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// Of a block: with many slots a thread needs more registers than a block of 1024 leaves it.
template <int kSlots>
constexpr int kMostThreads = kSlots > 2 ? 512 : 1024;

/// Columns of a thread: kSlots packs of kVec, `stride` apart; slots behind the row are zero and are not stored.
template <int kVec, int kSlots>
struct Columns {
  int first;
  int stride;
  int count;
  __device__ explicit Columns(int64_t hidden_size)
      : first(static_cast<int>(threadIdx.x) * kVec),
        stride(static_cast<int>(blockDim.x) * kVec),
        count(static_cast<int>(hidden_size)) {}
  __device__ __forceinline__ int at(int slot) const { return first + slot * stride; }
  __device__ __forceinline__ bool has(int slot) const { return at(slot) < count; }
};

template <class T, int kVec, int kSlots>
__global__ void __launch_bounds__(kMostThreads<kSlots>)
    residual_rms_norm_kernel(ResidualRmsNormParams<T> params, float inverse_size) {
  COPPICE_SHARED(float, shared, ReduceScratch<float>::kCount);
  ReduceScratch<float> scratch(shared);
  const Columns<kVec, kSlots> columns(params.hidden_size);
  const int64_t n = blockIdx.x;
  const bool adds = params.delta != nullptr;
  Pack<T, kVec> x[kSlots], delta[kSlots];
  Pack<float, kVec> weight[kSlots];
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {  // all under way before the first is needed
    const int64_t column = columns.at(slot);
    const bool there = columns.has(slot);
    x[slot] = load_or_zero<kVec>(params.x, n * params.x_row_stride + column, there);
    delta[slot] = load_or_zero<kVec>(params.delta, n * params.delta_row_stride + column, there && adds);
    weight[slot] = load_or_zero<kVec>(params.weight, column, there);
  }
  Pack<float, kVec> residual[kSlots];
  float squares = 0.0f;
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    residual[slot] = floats_of(x[slot]);
    if (adds && columns.has(slot)) {
      const auto added = floats_of(delta[slot]);
      Pack<T, kVec> stored;
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) stored[i] = from_float<T>(residual[slot][i] + added[i]);
      store_pack<kVec>(params.residual + n * params.hidden_size + columns.at(slot), stored);
      residual[slot] = floats_of(stored);
    }
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) squares += residual[slot][i] * residual[slot][i];
  }
  squares = block_reduce(squares, Sum(), 0.0f, scratch);
  const float rstd = rsqrtf(squares * inverse_size + params.eps);
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot) {
    if (!columns.has(slot)) continue;
    Pack<float, kVec> normed;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) normed[i] = weight[slot][i] * (residual[slot][i] * rstd);
    store_floats(params.normed + n * params.hidden_size + columns.at(slot), normed);
  }
  if (threadIdx.x == 0) store_pack<1>(params.rstd + n, Pack<float, 1>{{rstd}});
}

template <class T, int kVec, int kSlots>
__global__ void __launch_bounds__(kMostThreads<kSlots>)
    residual_rms_norm_backward_kernel(ResidualRmsNormBackwardParams<T> params, float inverse_size) {
  COPPICE_SHARED(float, shared, ReduceScratch<float>::kCount);
  ReduceScratch<float> scratch(shared);
  const Columns<kVec, kSlots> columns(params.hidden_size);
  // Wide rows are read twice: what their threads would have to hold does not fit into registers. Of rows in bf16 the
  // next is under way while this one's sum is taken, so that its loads wait for no barrier.
  constexpr bool kHolds = kVec * kSlots <= 8, kAhead = kHolds && sizeof(T) == 2;
  constexpr int kHeld = kHolds ? kSlots : 1;
  struct Slot {  // as it lies in memory
    Pack<T, kVec> residual, normed_grad;
  };
  struct Row {
    Slot slots[kHeld];
    float rstd;
  };
  Pack<float, kVec> weight[kHeld], weight_grad[kSlots]{};
  const auto load_weight = [&](int slot) {
    return load_or_zero<kVec>(params.weight, columns.at(slot), columns.has(slot));
  };
  const auto load_slot = [&](int64_t n, int slot, bool there) -> Slot {
    const bool wanted = there && columns.has(slot);
    return {load_or_zero<kVec>(params.residual, n * params.residual_row_stride + columns.at(slot), wanted),
            load_or_zero<kVec>(params.normed_grad, n * params.normed_grad_row_stride + columns.at(slot), wanted)};
  };
  const auto load_residual_grad = [&](int64_t n, int slot) {
    return load_or_zero<kVec>(params.residual_grad, n * params.residual_grad_row_stride + columns.at(slot),
                              params.residual_grad != nullptr && columns.has(slot));
  };
  const auto load_row = [&](int64_t n) {
    Row row;
    const bool there = n < params.num_tokens;
    COPPICE_UNROLL
    for (int slot = 0; kHolds && slot < kSlots; ++slot) row.slots[slot] = load_slot(n, slot, there);
    row.rstd = there ? params.rstd[n] : 0.0f;
    return row;
  };
  COPPICE_UNROLL
  for (int slot = 0; kHolds && slot < kSlots; ++slot) weight[slot] = load_weight(slot);
  Row next = load_row(kAhead ? blockIdx.x : params.num_tokens);
  for (int64_t n = blockIdx.x; n < params.num_tokens; n += gridDim.x) {
    Row row = kAhead ? next : load_row(n);
    Pack<T, kVec> residual_grad[kHeld];
    COPPICE_UNROLL
    for (int slot = 0; kHolds && slot < kSlots; ++slot) residual_grad[slot] = load_residual_grad(n, slot);
    if constexpr (kAhead) next = load_row(n + gridDim.x);
    const float rstd = row.rstd;
    float along = 0.0f;  // sum of g * xhat
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) {
      const int held = kHolds ? slot : 0;
      if constexpr (!kHolds) {
        row.slots[0] = load_slot(n, slot, true);
        weight[0] = load_weight(slot);
      }
      const auto residual = floats_of(row.slots[held].residual), grad = floats_of(row.slots[held].normed_grad);
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) {
        const float raw = grad[i] * (residual[i] * rstd);
        weight_grad[slot][i] += raw;
        along += raw * weight[held][i];
      }
    }
    const float pull = block_reduce(along, Sum(), 0.0f, scratch) * inverse_size;
    COPPICE_UNROLL
    for (int slot = 0; slot < kSlots; ++slot) {
      if (!columns.has(slot)) continue;
      const int held = kHolds ? slot : 0;
      if constexpr (!kHolds) {
        row.slots[0] = load_slot(n, slot, true);
        residual_grad[0] = load_residual_grad(n, slot);
        weight[0] = load_weight(slot);
      }
      const auto residual = floats_of(row.slots[held].residual), grad = floats_of(row.slots[held].normed_grad);
      auto x_grad = floats_of(residual_grad[held]);
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) x_grad[i] += rstd * (grad[i] * weight[held][i] - residual[i] * rstd * pull);
      store_floats(params.x_grad + n * params.hidden_size + columns.at(slot), x_grad);
    }
  }
  if (params.weight_grad == nullptr) return;
  COPPICE_UNROLL
  for (int slot = 0; slot < kSlots; ++slot)
    if (columns.has(slot))
      store_floats(params.weight_grad_partial + blockIdx.x * params.hidden_size + columns.at(slot), weight_grad[slot]);
}

/// Whether threads can take the rows in packs of 8.
template <class T>
bool packs(const T* rows, int64_t row_stride) {
  return row_stride % 8 == 0 && starts_at_packs(rows, row_stride);
}

/// Threads for `columns` in packs of `vec`, at most `slots` of them a thread.
int threads_for_columns(int64_t columns, int vec, int slots) {
  const int64_t packs = (columns + vec - 1) / vec, a_thread = (packs + slots - 1) / slots;
  return static_cast<int>((a_thread + kWarpThreads - 1) / kWarpThreads * kWarpThreads);
}

/// Calls launch_with<kVec, kSlots>() of the narrowest instance that holds a row.
template <class LaunchWith>
int choose(int64_t columns, bool vectors, const LaunchWith& launch_with) {
  if (vectors) return launch_with.template operator()<8, 1>();
  return columns <= 2048 ? launch_with.template operator()<1, 2>() : launch_with.template operator()<1, 16>();
}

}  // namespace

template <class T>
int residual_rms_norm(const ResidualRmsNormParams<T>& params, CUstream_st* stream) {
  if (params.num_tokens == 0) return 0;
  const int64_t columns = params.hidden_size;
  const bool vectors =
      packs(params.x, params.x_row_stride) && packs(params.normed, columns) && packs(params.weight, 0) &&
      (params.delta == nullptr || (packs(params.delta, params.delta_row_stride) && packs(params.residual, columns)));
  return choose(columns, vectors, [&]<int kVec, int kSlots>() {
    return launch(residual_rms_norm_kernel<T, kVec, kSlots>, params.num_tokens,
                  threads_for_columns(columns, kVec, kSlots), 0, stream, params, 1.0f / static_cast<float>(columns));
  });
}

template <class T>
int residual_rms_norm_backward(const ResidualRmsNormBackwardParams<T>& params, CUstream_st* stream) {
  const int64_t columns = params.hidden_size;
  const bool vectors = packs(params.residual, params.residual_row_stride) &&
                       packs(params.normed_grad, params.normed_grad_row_stride) && packs(params.x_grad, columns) &&
                       packs(params.residual_grad, params.residual_grad_row_stride) && packs(params.weight, 0) &&
                       packs(params.weight_grad_partial, columns);
  const int error = choose(columns, vectors, [&]<int kVec, int kSlots>() {
    return launch(residual_rms_norm_backward_kernel<T, kVec, kSlots>, kResidualRmsNormBlocks,
                  threads_for_columns(columns, kVec, kSlots), 0, stream, params, 1.0f / static_cast<float>(columns));
  });
  if (error != 0 || params.weight_grad == nullptr) return error;
  return add_up_rows({.rows = params.weight_grad_partial,
                      .sum = params.weight_grad,
                      .num_rows = kResidualRmsNormBlocks,
                      .num_columns = columns,
                      .accumulate = params.accumulate_weight_grad},
                     stream);
}

template int residual_rms_norm(const ResidualRmsNormParams<float>&, CUstream_st*);
template int residual_rms_norm(const ResidualRmsNormParams<Bf16>&, CUstream_st*);
template int residual_rms_norm_backward(const ResidualRmsNormBackwardParams<float>&, CUstream_st*);
template int residual_rms_norm_backward(const ResidualRmsNormBackwardParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
