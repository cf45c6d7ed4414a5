// The losses over a row's k ids S, with the rest of the vocabulary as one bucket R: stored top-k probabilities, shares
// of draws, and the decoupled form. One block a row. The logits of S are taken out of the row first (-infinity is left
// there), so that the walk over the row is of R alone and a small R is summed exactly; sums of R are kept beside R's
// own largest logit, so that none of them is ever 0. The gradient of R is the second walk, that of S is written over
// it. Bytes of a row beside its labels, s = bytes of an element, K = its ids: (V + K + 1) s read, (V + 2 K) s + 16
// written; rows that do not fit into shared memory: (2 V + K + 1) s read; without a gradient: K s + 16 written.
#include "src/tensors/kernels/linear_top_k_cross_entropy.h"

#include "src/tensors/kernels/decoupled_top_k.h"
#include "src/tensors/kernels/loss_walk.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// Of logits at one temperature. Where shares are softened alone, `rest` is the teacher's: of log q / tau in S.
struct Buckets {
  Exponentials rest, inside;
};
struct JoinBuckets {
  __device__ __forceinline__ Buckets operator()(const Buckets& a, const Buckets& b) const {
    return {join(a.rest, b.rest), join(a.inside, b.inside)};
  }
};

/// Over S.
struct InsideSums {
  float mass, value;  // sum q; what the ids contribute to K / tau^2, of the decoupled form without Q
};
__device__ __forceinline__ InsideSums operator+(const InsideSums& a, const InsideSums& b) {
  return {a.mass + b.mass, a.value + b.value};
}

/// log2 of 2^(x - largest) / sum.
__device__ __forceinline__ float log2_share(float x, float factor, const Exponentials& of) {
  return fmaf(x, factor, -of.largest) - log2f(of.sum);
}
/// log2 of what `part` is of `whole`; below what a double can hold, as on the CPU, where it is nothing.
__device__ __forceinline__ float log2_part(const Exponentials& part, const Exponentials& whole) {
  return fmaxf(part.largest - whole.largest + log2f(part.sum) - log2f(whole.sum), -1022.0f);
}

/// body(i, id) for the thread's entries of S.
template <class T, class Body>
__device__ __forceinline__ void walk_entries(const TopKCrossEntropyParams<T>& params, int64_t n, bool taught,
                                             const Body& body) {
  if (!taught) return;
  for (int i = static_cast<int>(threadIdx.x); i < params.k; i += static_cast<int>(blockDim.x))
    if (const int64_t id = params.top_id[n * params.k + i]; id >= 0) body(i, id);
}

template <class T, bool kDecoupled, int kVec, bool kKeep>
__global__ void __launch_bounds__(kMostWalkThreads, 1) top_k_kernel(TopKCrossEntropyParams<T> params) {
  COPPICE_SHARED(Buckets, shared_buckets, ReduceScratch<Buckets>::kCount);
  COPPICE_SHARED(Choice, shared_choices, ReduceScratch<Choice>::kCount);
  COPPICE_SHARED(InsideSums, shared_sums, ReduceScratch<InsideSums>::kCount);
  const int64_t n = blockIdx.x;
  const int columns = static_cast<int>(params.num_vocab);
  T* const row = params.logits + n * params.num_vocab;
  float* const z_inside = static_cast<float*>(dynamic_shared());
  T* const kept = reinterpret_cast<T*>(z_inside + (params.k + 3) / 4 * 4);
  const int64_t true_label = params.true_label[n];
  if (true_label == kIgnoredLabel) {
    if (params.write_gradient) store_zeros<kVec>(row, columns);
    if (threadIdx.x == 0) store_pack<1>(params.terms + n, Pack<LossTerms, 1>{});
    return;
  }
  const bool taught = params.k > 0 && params.top_id[n * params.k] >= 0;
  const float* const log_q = params.top_logp + n * params.k;
  const float tau = static_cast<float>(params.settings.temperature), softened = kLog2E / tau;
  const bool tempered = !kDecoupled && tau != 1.0f, without_entropy = !kDecoupled && params.cross_entropy;

  // S is taken out of the row.
  const float z_true = threadIdx.x == 0 ? to_float(load_pack<1>(row + true_label)[0]) : 0.0f;
  walk_entries(params, n, taught, [&](int i, int64_t id) { z_inside[i] = to_float(load_pack<1>(row + id)[0]); });
  __syncthreads();
  walk_entries(params, n, taught,
               [&](int, int64_t id) { store_pack<1>(row + id, Pack<T, 1>{{from_float<T>(-INFINITY)}}); });
  __syncthreads();

  // Sums of both buckets, at temperature 1 and softened.
  Buckets plain{no_exponentials(), no_exponentials()}, soft = plain;
  Choice choice = no_choice();
  constexpr int kUnderWay = kKeep ? 4 : 2;  // more would not leave registers enough for two temperatures
  walk_row<kVec, kUnderWay>(row, columns, [&](int v, const Pack<T, kVec>& pack) {
    if constexpr (kKeep) store_shared<kVec>(kept + v, pack);
    const auto z = floats_of(pack);
    add_exponentials(plain.rest, z, kLog2E);
    if (tempered) add_exponentials(soft.rest, z, softened);
    if (params.argmax) add_choices(choice, z, v);
  });
  walk_entries(params, n, taught, [&](int i, int64_t id) {
    const Pack<float, 1> z{{z_inside[i]}};
    add_exponentials(plain.inside, z, kLog2E);
    if (tempered || kDecoupled) add_exponentials(soft.inside, z, softened);
    if (kDecoupled) add_exponentials(soft.rest, Pack<float, 1>{{log_q[i]}}, softened);
    choice = JoinChoices()(choice, {z[0], static_cast<int>(id)});
  });
  const Buckets none{no_exponentials(), no_exponentials()};
  ReduceScratch<Buckets> buckets(shared_buckets);
  plain = block_reduce(plain, JoinBuckets(), none, buckets);
  soft = tempered || kDecoupled ? block_reduce(soft, JoinBuckets(), none, buckets) : plain;
  if (params.argmax) {
    ReduceScratch<Choice> choices(shared_choices);
    choice = block_reduce(choice, JoinChoices(), no_choice(), choices);
  }
  const Exponentials whole = join(plain.rest, plain.inside);
  const Exponentials soft_whole = kDecoupled ? whole : join(soft.rest, soft.inside);

  // What the ids of S contribute.
  InsideSums sums{0.0f, 0.0f};
  walk_entries(params, n, taught, [&](int i, int64_t) {
    const float q = expf(log_q[i]);
    sums.mass += q;
    if (kDecoupled) {
      const float log2_a = log2_share(log_q[i], softened, soft.rest), a = fast_exp2(log2_a);
      if (a > 0.0f) sums.value += kLn2 * a * (log2_a - log2_share(z_inside[i], softened, soft.inside));
    } else if (q > 0.0f) {
      sums.value += q * ((without_entropy ? 0.0f : log_q[i]) - kLn2 * log2_share(z_inside[i], softened, soft_whole));
    }
  });
  ReduceScratch<InsideSums> scratch(shared_sums);
  sums = block_reduce(sums, Sum(), InsideSums{0.0f, 0.0f}, scratch);

  const float log_q_rest = taught ? params.tail_logp[n] : -INFINITY, q_rest = expf(log_q_rest),
              q_all = sums.mass + q_rest;
  const Exponentials& rest = kDecoupled ? plain.rest : soft.rest;
  const float log2_rest = log2_part(rest, soft_whole), log2_inside = log2_part(plain.inside, whole);
  const float lse = kLn2 * log2_of(whole), scale = static_cast<float>(params.scale),
              z_loss = static_cast<float>(params.settings.z_loss);
  if (threadIdx.x == 0) {
    const float ce = -kLn2 * log2_share(z_true, kLog2E, whole);
    float kd = q_rest > 0.0f ? q_rest * ((without_entropy ? 0.0f : log_q_rest) - kLn2 * log2_rest) : 0.0f;
    if (kDecoupled) {
      if (sums.mass > 0.0f) kd += sums.mass * (logf(sums.mass) - kLn2 * log2_inside + tau * tau * sums.value);
    } else {
      kd = tau * tau * (kd + sums.value);
    }
    LossTerms terms{ce, taught ? kd : ce, z_loss * lse * lse, kLiveRow};
    if (params.argmax && choice.id == true_label) terms.marks += kCorrectRow;
    if (params.argmax && taught && choice.id == params.top_id[n * params.k]) terms.marks += kAgreeingRow;
    store_pack<1>(params.terms + n, Pack<LossTerms, 1>{{terms}});
  }
  if (!params.write_gradient) return;

  // The gradient of R, as if S were not there.
  const float weight = taught ? static_cast<float>(params.settings.teacher_weight) : 0.0f;
  const float ours = scale * (1.0f - weight + 2.0f * z_loss * lse) / whole.sum,
              teachers = scale * weight * (kDecoupled ? 1.0f : tau), true_share = scale * (1.0f - weight);
  const float of_plain = ours * fast_exp2(plain.rest.largest - whole.largest),
              of_rest = rest.sum > 0.0f ? teachers * (q_all * fast_exp2(log2_rest) - q_rest) / rest.sum : 0.0f;
  const int true_column = static_cast<int>(true_label);
  const auto differentiate = [&](int v, const Pack<T, kVec>& pack) {
    auto gradient = floats_of(pack);
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) {
      const float z = gradient[i], e = fast_exp2(fmaf(z, kLog2E, -plain.rest.largest));
      gradient[i] = tempered ? of_plain * e + of_rest * fast_exp2(fmaf(z, softened, -soft.rest.largest))
                             : (of_plain + of_rest) * e;
    }
    take_off(gradient, v, true_column, true_share);
    store_floats(row + v, gradient);
  };
  if constexpr (kKeep)
    walk_columns<kVec>(columns, [&](int v) { differentiate(v, load_shared<kVec>(kept + v)); });
  else
    walk_row<kVec, kUnderWay>(row, columns, differentiate);
  __syncthreads();

  // And that of S, over it.
  walk_entries(params, n, taught, [&](int i, int64_t id) {
    const float z = z_inside[i], q = expf(log_q[i]);
    float gradient = ours * fast_exp2(fmaf(z, kLog2E, -whole.largest));
    if (kDecoupled) {
      const float a = sums.mass > 0.0f ? fast_exp2(log2_share(log_q[i], softened, soft.rest)) : 0.0f,
                  b = fast_exp2(log2_share(z, softened, soft.inside)),
                  in_s = fast_exp2(log2_share(z, kLog2E, plain.inside));
      gradient += teachers * (in_s * (q_all * fast_exp2(log2_inside) - sums.mass) + tau * sums.mass * (b - a));
    } else {
      gradient += teachers * (q_all * fast_exp2(log2_share(z, softened, soft_whole)) - q);
    }
    if (id == true_label) gradient -= true_share;
    store_pack<1>(row + id, Pack<T, 1>{{from_float<T>(gradient)}});
  });
}

template <bool kDecoupled, class T>
int launch_top_k(const TopKCrossEntropyParams<T>& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  const int64_t bytes_of_entries = (params.k + 3) / 4 * 16;
  return launch_walk<T>(params.num_vocab, 1, starts_at_packs(params.logits, params.num_vocab), params.write_gradient,
                        bytes_of_entries, [&]<int kVec, bool kKeep>(int threads, int64_t shared_bytes) {
                          return launch(top_k_kernel<T, kDecoupled, kVec, kKeep>, params.num_rows, threads,
                                        shared_bytes, stream, params);
                        });
}

}  // namespace

template <class T>
int top_k_cross_entropy(const TopKCrossEntropyParams<T>& params, CUstream_st* stream) {
  return launch_top_k<false>(params, stream);
}
template <class T>
int decoupled_top_k(const TopKCrossEntropyParams<T>& params, CUstream_st* stream) {
  return launch_top_k<true>(params, stream);
}
template int top_k_cross_entropy(const TopKCrossEntropyParams<float>&, CUstream_st*);
template int top_k_cross_entropy(const TopKCrossEntropyParams<Bf16>&, CUstream_st*);
template int decoupled_top_k(const TopKCrossEntropyParams<float>&, CUstream_st*);
template int decoupled_top_k(const TopKCrossEntropyParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
