// Losses between hidden states, one block a row both ways: forward one walk and one reduction, backward one walk with
// two factors that the row's products give. s = bytes of an element; bytes of a live row: forward 2 s D + 4, of cosine
// 12 more where a backward follows; backward 3 s D; of another row 4 (16) and s D.
#include "src/tensors/kernels/hidden_state_loss.h"

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 512;
constexpr int kPack = 8;

/// mse: sum of (x - y)^2 in xy; cosine: x.y, x.x, y.y.
struct Products {
  float xy, xx, yy;
  __device__ __forceinline__ Products operator+(const Products& other) const {
    return {xy + other.xy, xx + other.xx, yy + other.yy};
  }
};

__device__ __forceinline__ float clamped_norm(float square) { return fmaxf(sqrtf(square), kLeastNorm); }

/// visit(column, x, y) of the thread's packs of a row.
template <int kVec, class Params, class Visit>
__device__ __forceinline__ void each_pack(const Params& params, int64_t n, const Visit& visit) {
  const auto* const student = params.student + n * params.student_row_stride;
  const auto* const teacher = params.teacher + n * params.teacher_row_stride;
  const int count = static_cast<int>(params.hidden_size), stride = static_cast<int>(blockDim.x) * kVec;
  for (int column = static_cast<int>(threadIdx.x) * kVec; column < count; column += stride)
    visit(column, load_pack<kVec>(student + column), load_pack<kVec>(teacher + column));
}

template <class T, int kVec, HiddenLoss kKind>
__global__ void __launch_bounds__(kThreads) hidden_state_loss_kernel(HiddenStateLossParams<T> params) {
  COPPICE_SHARED(Products, shared, ReduceScratch<Products>::kCount);
  ReduceScratch<Products> scratch(shared);
  constexpr bool kCosine = kKind == HiddenLoss::cosine;
  const int64_t n = blockIdx.x;
  Products products{0.0f, 0.0f, 0.0f};
  float loss = 0.0f;
  if (params.live[n]) {
    each_pack<kVec>(params, n, [&](int, const Pack<T, kVec>& student, const Pack<T, kVec>& teacher) {
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) {
        const float x = to_float(student[i]), y = to_float(teacher[i]);
        products.xy += kCosine ? x * y : (x - y) * (x - y);
        products.xx += kCosine ? x * x : 0.0f;
        products.yy += kCosine ? y * y : 0.0f;
      }
    });
    products = block_reduce(products, Sum(), Products{0.0f, 0.0f, 0.0f}, scratch);
    loss = kCosine ? 1.0f - products.xy / (clamped_norm(products.xx) * clamped_norm(products.yy))
                   : products.xy / static_cast<float>(params.hidden_size);
  }
  if (threadIdx.x != 0) return;
  store_pack<1>(params.loss + n, Pack<float, 1>{{loss}});
  if (!kCosine || params.products == nullptr) return;
  store_pack<1>(params.products + n * 3, Pack<float, 1>{{products.xy}});
  store_pack<1>(params.products + n * 3 + 1, Pack<float, 1>{{products.xx}});
  store_pack<1>(params.products + n * 3 + 2, Pack<float, 1>{{products.yy}});
}

/// d x = of_x x + of_y y.
struct Factors {
  float of_x, of_y;
};
template <HiddenLoss kKind>
__device__ __forceinline__ Factors factors_of(const float* products, float scale, int64_t hidden_size) {
  if constexpr (kKind == HiddenLoss::mse) {
    const float factor = scale * 2.0f / static_cast<float>(hidden_size);
    return {factor, -factor};
  } else {
    const float norm = sqrtf(products[1]), a = clamped_norm(products[1]), b = clamped_norm(products[2]),
                cosine = products[0] / (a * b);
    return {norm > 0.0f ? scale * cosine / (a * norm) : 0.0f, -scale / (a * b)};
  }
}

template <class T, int kVec, HiddenLoss kKind>
__global__ void __launch_bounds__(kThreads) hidden_state_loss_backward_kernel(HiddenStateLossBackwardParams<T> params) {
  const int64_t n = blockIdx.x;
  T* const grad = params.student_grad + n * params.hidden_size;
  if (!params.live[n]) {
    Pack<T, kVec> zero;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) zero[i] = from_float<T>(0.0f);
    for (int column = static_cast<int>(threadIdx.x) * kVec; column < params.hidden_size; column += blockDim.x * kVec)
      store_pack<kVec>(grad + column, zero);
    return;
  }
  const Factors factors = factors_of<kKind>(params.products + n * 3, *params.scale, params.hidden_size);
  each_pack<kVec>(params, n, [&](int column, const Pack<T, kVec>& student, const Pack<T, kVec>& teacher) {
    Pack<T, kVec> of_pack;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) {
      const float x = to_float(student[i]), y = to_float(teacher[i]);
      // of mse the difference first: x and y may be large and near each other
      of_pack[i] =
          from_float<T>(kKind == HiddenLoss::mse ? factors.of_x * (x - y) : factors.of_x * x + factors.of_y * y);
    }
    store_pack<kVec>(grad + column, of_pack);
  });
}

template <class T>
bool in_packs(const T* start, int64_t row_stride) {
  return reinterpret_cast<uintptr_t>(start) % 16 == 0 && row_stride % kPack == 0;
}

int threads_for_columns(int64_t columns, int vec) {
  const int64_t a_warp = int64_t{kWarpThreads} * vec, threads = (columns + a_warp - 1) / a_warp * kWarpThreads;
  return static_cast<int>(threads < kThreads ? threads : kThreads);
}

/// Calls launch_with<kVec, kKind>().
template <class LaunchWith>
int choose(bool vectors, HiddenLoss kind, const LaunchWith& launch_with) {
  if (kind == HiddenLoss::mse)
    return vectors ? launch_with.template operator()<kPack, HiddenLoss::mse>()
                   : launch_with.template operator()<1, HiddenLoss::mse>();
  return vectors ? launch_with.template operator()<kPack, HiddenLoss::cosine>()
                 : launch_with.template operator()<1, HiddenLoss::cosine>();
}

}  // namespace

template <class T>
int hidden_state_loss(const HiddenStateLossParams<T>& params, CUstream_st* stream) {
  if (params.num_tokens == 0) return 0;
  const int64_t columns = params.hidden_size;
  const bool vectors = columns % kPack == 0 && in_packs(params.student, params.student_row_stride) &&
                       in_packs(params.teacher, params.teacher_row_stride);
  return choose(vectors, params.kind, [&]<int kVec, HiddenLoss kKind>() {
    return launch(hidden_state_loss_kernel<T, kVec, kKind>, params.num_tokens, threads_for_columns(columns, kVec), 0,
                  stream, params);
  });
}

template <class T>
int hidden_state_loss_backward(const HiddenStateLossBackwardParams<T>& params, CUstream_st* stream) {
  if (params.num_tokens == 0) return 0;
  const int64_t columns = params.hidden_size;
  const bool vectors = in_packs(params.student, params.student_row_stride) &&
                       in_packs(params.teacher, params.teacher_row_stride) && in_packs(params.student_grad, columns);
  return choose(vectors, params.kind, [&]<int kVec, HiddenLoss kKind>() {
    return launch(hidden_state_loss_backward_kernel<T, kVec, kKind>, params.num_tokens,
                  threads_for_columns(columns, kVec), 0, stream, params);
  });
}

template int hidden_state_loss(const HiddenStateLossParams<float>&, CUstream_st*);
template int hidden_state_loss(const HiddenStateLossParams<Bf16>&, CUstream_st*);
template int hidden_state_loss_backward(const HiddenStateLossBackwardParams<float>&, CUstream_st*);
template int hidden_state_loss_backward(const HiddenStateLossBackwardParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
