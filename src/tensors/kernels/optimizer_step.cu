// The update of the parameters over pieces of the arena. One warp a piece, four elements a lane and pack: a piece's sum
// is a function of the piece alone, and no warp waits for another. Sums of pieces are added by one block an optimizer
// block, those of the blocks by one block, each thread every 512th in order, all in double.
// Bytes an element: squares 4 read, and 8 written a piece; AdaStar's squares of u 8 read; a move 16 read and 16
// written, with a working copy 18 written, with a split master 16 and 16. A piece's row of 40 bytes and its block's,
// for 2048 elements or more, come on top.
#include "src/tensors/kernels/optimizer_step.h"

#include "src/tensors/kernels/cuda_dialect.h"
#include "src/tensors/kernels/split_master.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpThreads;
constexpr int kVec = 4;

/// The place in params.pieces of the calling warp's piece; may lie behind the last.
__device__ __forceinline__ int64_t place_of_warp() { return blockIdx.x * int64_t{kWarps} + threadIdx.x / kWarpThreads; }

/// Whether a piece of `aligned` buffers can be moved in packs.
__device__ __forceinline__ bool has_packs(const OptimizerPiece& piece, bool aligned) {
  return aligned && piece.offset % kVec == 0 && piece.size % kVec == 0;
}

template <int kWidth, class T>
__device__ __forceinline__ Pack<T, kWidth> load_or_zero(const T* from, bool there) {
  return there ? load_pack<kWidth>(from) : Pack<T, kWidth>{};
}

/// Calls step(first, stride) where the lane has kPacks packs of kWidth elements, at first, first + stride, ..., some of
/// which may lie behind the piece.
template <int kWidth, int kPacks, class Step>
__device__ __forceinline__ void walk(const OptimizerPiece& piece, const Step& step) {
  constexpr int kStride = kWidth * kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads, size = static_cast<int>(piece.size);
  for (int first = lane * kWidth; first < size; first += kPacks * kStride) step(first, kStride);
}

template <int kWidth>
__device__ __forceinline__ double square_sum(const float* gradient, const OptimizerPiece& piece) {
  constexpr int kPacks = 4;
  double sum = 0.0;
  walk<kWidth, kPacks>(piece, [&](int first, int stride) {
    Pack<float, kWidth> g[kPacks];
    COPPICE_UNROLL
    for (int i = 0; i < kPacks; ++i)
      g[i] = load_or_zero<kWidth>(gradient + first + i * stride, first + i * stride < piece.size);
    COPPICE_UNROLL
    for (int i = 0; i < kPacks; ++i) {
      COPPICE_UNROLL
      for (int j = 0; j < kWidth; ++j) sum += double{g[i][j]} * double{g[i][j]};
    }
  });
  return warp_reduce(sum, Sum());
}

__device__ __forceinline__ void store_sum(const OptimizerKernelParams& params, const OptimizerPiece& piece,
                                          double sum) {
  if (threadIdx.x % kWarpThreads == 0) store_pack<1>(params.sums + piece.index, Pack<double, 1>{{sum}});
}

__global__ void __launch_bounds__(kThreads) square_sums_kernel(OptimizerKernelParams params, bool aligned) {
  const int64_t p = place_of_warp();
  if (p >= params.num_pieces) return;
  const OptimizerPiece piece = params.pieces[p];
  const float* const gradient = params.gradient + piece.offset;
  store_sum(params, piece,
            has_packs(piece, aligned) ? square_sum<kVec>(gradient, piece) : square_sum<1>(gradient, piece));
}

/// Factors of one piece.
struct Factors {
  float clip, beta_1, rest_1, beta_2, rest_2, inverse_bias_1, inverse_bias_2, move, decay;
  /// `update_factor`: of what is averaged into m.
  __device__ Factors(const OptimizerKernelParams& params, int64_t block, double update_factor)
      : clip(static_cast<float>(params.scalars->clip)),
        beta_1(static_cast<float>(params.beta_1)),
        rest_1(static_cast<float>((1.0 - params.beta_1) * update_factor)),
        beta_2(static_cast<float>(params.beta_2)),
        rest_2(static_cast<float>(1.0 - params.beta_2)),
        inverse_bias_1(static_cast<float>(params.scalars->inverse_bias_1)),
        inverse_bias_2(static_cast<float>(params.scalars->inverse_bias_2)),
        move(static_cast<float>(params.scalars->lr * params.blocks[block].multiplier)),
        decay(static_cast<float>(params.scalars->weight_decay * params.blocks[block].decay)) {}

  __device__ __forceinline__ float adastar_second_moment(float v, float square) const {
    return beta_2 * v + rest_2 * (square + 1e-30f);
  }
};

template <int kWidth>
__device__ __forceinline__ double adastar_square_sum(const OptimizerKernelParams& params, const OptimizerPiece& piece,
                                                     const Factors& factors) {
  constexpr int kPacks = 2;
  const float* const gradient = params.gradient + piece.offset;
  const float* const second = params.v + piece.offset;
  double sum = 0.0;
  walk<kWidth, kPacks>(piece, [&](int first, int stride) {
    Pack<float, kWidth> g[kPacks], v[kPacks];
    COPPICE_UNROLL
    for (int i = 0; i < kPacks; ++i) {
      const int at = first + i * stride;
      g[i] = load_or_zero<kWidth>(gradient + at, at < piece.size);
      v[i] = load_or_zero<kWidth>(second + at, at < piece.size);
    }
    COPPICE_UNROLL
    for (int i = 0; i < kPacks; ++i) {
      float squares = 0.0f;
      COPPICE_UNROLL
      for (int j = 0; j < kWidth; ++j) {
        const float clipped = g[i][j] * factors.clip, square = clipped * clipped;
        squares += square * fast_reciprocal(factors.adastar_second_moment(v[i][j], square) * factors.inverse_bias_2);
      }
      sum += double{squares};
    }
  });
  return warp_reduce(sum, Sum());
}

__global__ void __launch_bounds__(kThreads) adastar_square_sums_kernel(OptimizerKernelParams params, bool aligned) {
  const int64_t p = place_of_warp();
  if (p >= params.num_pieces || *params.applied == 0.0) return;
  const OptimizerPiece piece = params.pieces[p];
  const Factors factors(params, piece.block, 1.0);
  store_sum(params, piece,
            has_packs(piece, aligned) ? adastar_square_sum<kVec>(params, piece, factors)
                                      : adastar_square_sum<1>(params, piece, factors));
}

template <bool kInverseRms>
__global__ void __launch_bounds__(kThreads) block_values_kernel(OptimizerKernelParams params) {
  COPPICE_SHARED(double, shared, ReduceScratch<double>::kCount);
  ReduceScratch<double> scratch(shared);
  const OptimizerBlockRow block = params.blocks[blockIdx.x];
  double sum = 0.0;
  for (int64_t p = threadIdx.x; p < block.num_pieces; p += kThreads)
    sum += load_pack<1>(params.sums + block.first_piece + p)[0];
  sum = block_reduce(sum, Sum(), 0.0, scratch);
  if (threadIdx.x != 0) return;
  const double value = kInverseRms ? 1.0 / fmax(1.0, sqrt(sum / static_cast<double>(block.size))) : sum;
  store_pack<1>(params.block_values + blockIdx.x, Pack<double, 1>{{value}});
}

__global__ void __launch_bounds__(kThreads) vote_kernel(OptimizerKernelParams params) {
  COPPICE_SHARED(double, shared, ReduceScratch<double>::kCount);
  ReduceScratch<double> scratch(shared);
  double sum = 0.0;
  for (int64_t b = threadIdx.x; b < params.num_blocks; b += kThreads) sum += load_pack<1>(params.block_values + b)[0];
  sum = block_reduce(sum, Sum(), 0.0, scratch);
  if (threadIdx.x != 0) return;
  const double norm = sqrt(sum);
  const bool applied = *params.not_finite == 0.0 && norm < params.scalars->drop_grad_norm;  // a NaN compares false
  *params.grad_norm = norm;
  *params.applied = applied ? 1.0 : 0.0;
  params.scalars->clip = applied ? fmin(1.0, params.scalars->max_grad_norm / (norm + 1e-8)) : 1.0;
}

enum class Master { alone, with_copy, split };

template <Master kMaster, int kWidth>
__device__ __forceinline__ Pack<float, kWidth> load_master(const OptimizerKernelParams& params, int64_t at,
                                                           bool there) {
  if constexpr (kMaster != Master::split) {
    return load_or_zero<kWidth>(params.theta + at, there);
  } else {
    const auto working = load_or_zero<kWidth>(params.working + at, there);
    const auto remainder = load_or_zero<kWidth>(params.remainder + at, there);
    Pack<float, kWidth> theta;
    COPPICE_UNROLL
    for (int j = 0; j < kWidth; ++j) theta[j] = join_master({working[j], remainder[j]});
    return theta;
  }
}

template <Master kMaster, int kWidth>
__device__ __forceinline__ void store_master(const OptimizerKernelParams& params, int64_t at,
                                             const Pack<float, kWidth>& theta) {
  if constexpr (kMaster != Master::split) store_pack<kWidth>(params.theta + at, theta);
  if constexpr (kMaster == Master::with_copy) {
    Pack<Bf16, kWidth> working;
    COPPICE_UNROLL
    for (int j = 0; j < kWidth; ++j) working[j] = split_master(theta[j]).working;
    store_pack<kWidth>(params.working + at, working);
  }
  if constexpr (kMaster == Master::split) {
    Pack<Bf16, kWidth> working;
    Pack<int16_t, kWidth> remainder;
    COPPICE_UNROLL
    for (int j = 0; j < kWidth; ++j) {
      const SplitMaster split = split_master(theta[j]);
      working[j] = split.working;
      remainder[j] = split.remainder;
    }
    store_pack<kWidth>(params.working + at, working);
    store_pack<kWidth>(params.remainder + at, remainder);
  }
}

struct Adastar {
  __device__ __forceinline__ static float move(const Factors& f, float gradient, float& v, float& m) {
    const float g = gradient * f.clip;
    v = f.adastar_second_moment(v, g * g);
    m = f.beta_1 * m + f.rest_1 * (g * rsqrtf(v * f.inverse_bias_2));
    return f.move * m;
  }
  static constexpr bool kBlockValues = true;
};

struct Adamw {
  __device__ __forceinline__ static float move(const Factors& f, float gradient, float& v, float& m) {
    const float g = gradient * f.clip;
    m = f.beta_1 * m + f.rest_1 * g;
    v = f.beta_2 * v + f.rest_2 * (g * g);
    return f.move * (m * f.inverse_bias_1 * fast_reciprocal(sqrtf(v * f.inverse_bias_2) + 1e-8f));
  }
  static constexpr bool kBlockValues = false;
};

template <class Rule, Master kMaster, int kWidth>
__device__ __forceinline__ void move_piece(const OptimizerKernelParams& params, const OptimizerPiece& piece,
                                           const Factors& factors) {
  constexpr int kPacks = kWidth == 1 ? 4 : 2;
  walk<kWidth, kPacks>(piece, [&](int first, int stride) {
    Pack<float, kWidth> g[kPacks], v[kPacks], m[kPacks], theta[kPacks];
    COPPICE_UNROLL
    for (int i = 0; i < kPacks; ++i) {
      const bool there = first + i * stride < piece.size;
      const int64_t at = piece.offset + first + i * stride;
      g[i] = load_or_zero<kWidth>(params.gradient + at, there);
      v[i] = load_or_zero<kWidth>(params.v + at, there);
      m[i] = load_or_zero<kWidth>(params.m + at, there);
      theta[i] = load_master<kMaster, kWidth>(params, at, there);
    }
    COPPICE_UNROLL
    for (int i = 0; i < kPacks; ++i) {
      if (first + i * stride >= piece.size) continue;
      const int64_t at = piece.offset + first + i * stride;
      COPPICE_UNROLL
      for (int j = 0; j < kWidth; ++j)
        theta[i][j] -= Rule::move(factors, g[i][j], v[i][j], m[i][j]) + factors.decay * theta[i][j];
      store_pack<kWidth>(params.gradient + at, Pack<float, kWidth>{});
      store_pack<kWidth>(params.v + at, v[i]);
      store_pack<kWidth>(params.m + at, m[i]);
      store_master<kMaster, kWidth>(params, at, theta[i]);
    }
  });
}

template <int kWidth>
__device__ __forceinline__ void zero_gradient(const OptimizerKernelParams& params, const OptimizerPiece& piece) {
  walk<kWidth, 1>(piece, [&](int first, int) {
    store_pack<kWidth>(params.gradient + piece.offset + first, Pack<float, kWidth>{});
  });
}

template <class Rule, Master kMaster>
__global__ void __launch_bounds__(kThreads, 2) move_kernel(OptimizerKernelParams params, bool aligned) {
  const int64_t p = place_of_warp();
  if (p >= params.num_pieces) return;
  const OptimizerPiece piece = params.pieces[p];
  const bool packs = has_packs(piece, aligned);
  if (*params.applied == 0.0) {
    packs ? zero_gradient<kVec>(params, piece) : zero_gradient<1>(params, piece);
    return;
  }
  const Factors factors(params, piece.block, Rule::kBlockValues ? params.block_values[piece.block] : 1.0);
  packs ? move_piece<Rule, kMaster, kVec>(params, piece, factors)
        : move_piece<Rule, kMaster, 1>(params, piece, factors);
}

/// Whether an element whose offset is a multiple of kVec starts a pack in every buffer.
bool aligned(const OptimizerKernelParams& params) {
  const auto starts_pack = [](const auto* start) {
    return reinterpret_cast<uintptr_t>(start) % (kVec * sizeof(*start)) == 0;
  };
  return starts_pack(params.gradient) && starts_pack(params.v) && starts_pack(params.m) && starts_pack(params.theta) &&
         starts_pack(params.working) && starts_pack(params.remainder);
}

/// One warp a piece.
template <class Kernel>
int launch_over_pieces(Kernel kernel, const OptimizerKernelParams& params, CUstream_st* stream) {
  if (params.num_pieces == 0) return 0;
  return launch(kernel, (params.num_pieces + kWarps - 1) / kWarps, kThreads, 0, stream, params, aligned(params));
}

template <class Rule>
int launch_move(const OptimizerKernelParams& params, CUstream_st* stream) {
  if (params.theta == nullptr) return launch_over_pieces(move_kernel<Rule, Master::split>, params, stream);
  if (params.working == nullptr) return launch_over_pieces(move_kernel<Rule, Master::alone>, params, stream);
  return launch_over_pieces(move_kernel<Rule, Master::with_copy>, params, stream);
}

}  // namespace

int optimizer_square_sums(const OptimizerKernelParams& params, CUstream_st* stream) {
  return launch_over_pieces(square_sums_kernel, params, stream);
}

int optimizer_vote(const OptimizerKernelParams& params, CUstream_st* stream) {
  const int error = launch(block_values_kernel<false>, params.num_blocks, kThreads, 0, stream, params);
  return error != 0 ? error : launch(vote_kernel, 1, kThreads, 0, stream, params);
}

int adastar_square_sums(const OptimizerKernelParams& params, CUstream_st* stream) {
  return launch_over_pieces(adastar_square_sums_kernel, params, stream);
}

int adastar_inverse_rms(const OptimizerKernelParams& params, CUstream_st* stream) {
  return launch(block_values_kernel<true>, params.num_blocks, kThreads, 0, stream, params);
}

int adastar_move(const OptimizerKernelParams& params, CUstream_st* stream) {
  return launch_move<Adastar>(params, stream);
}

int adamw_move(const OptimizerKernelParams& params, CUstream_st* stream) { return launch_move<Adamw>(params, stream); }

}  // namespace coppice::COPPICE_EXECUTION
