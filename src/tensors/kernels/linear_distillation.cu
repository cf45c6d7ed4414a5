// KL, reverse KL and JSD between rows of a teacher's logits u and a student's z. One block a row; both rows stay in
// shared memory between walks where they fit. The divergence of both KL joins the online sums, so that two walks do;
// JSD needs both log-sum-exps first, and its mean before the gradient: three. Bytes of a row, s = bytes of an element:
// (2 V + 1) s read, V s + 16 written; rows that do not fit are read once more a walk; without a gradient 16 written.
// Exponentials and logarithms of an element, at temperature 1: 4, JSD 8.
#include "src/tensors/kernels/linear_distillation.h"

#include "src/tensors/kernels/loss_walk.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

/// Largest exponents: of z at temperature 1, z / tau, u / tau.
struct Peaks {
  float one, p, q;
};
struct JoinPeaks {
  __device__ __forceinline__ Peaks operator()(const Peaks& a, const Peaks& b) const {
    return {fmaxf(a.one, b.one), fmaxf(a.p, b.p), fmaxf(a.q, b.q)};
  }
};

/// Sums of 2^(x - peak); cross: of kl sum e_q (x_q - x_p), of reverse_kl sum e_p (x_p - x_q), peaks taken off.
struct PairSums {
  float one, p, q, cross;
};
__device__ __forceinline__ PairSums operator+(const PairSums& a, const PairSums& b) {
  return {a.one + b.one, a.p + b.p, a.q + b.q, a.cross + b.cross};
}

/// Of jsd: sum q log2(q / m), sum p log2(p / m).
struct Halves {
  float q, p;
};
__device__ __forceinline__ Halves operator+(const Halves& a, const Halves& b) { return {a.q + b.q, a.p + b.p}; }

template <DistillationLoss kLoss>
struct OnlinePair {
  float softened;  // log2(e) / tau
  bool tempered;   // else the sum at temperature 1 is that of p
  Peaks peaks = {no_exponentials().largest, no_exponentials().largest, no_exponentials().largest};
  PairSums sums = {0.0f, 0.0f, 0.0f, 0.0f};

  /// The sums as they are with other peaks.
  __device__ __forceinline__ void move_to(const Peaks& to) {
    const float to_p = peaks.p - to.p, to_q = peaks.q - to.q, of_p = fast_exp2(to_p), of_q = fast_exp2(to_q);
    if constexpr (kLoss == DistillationLoss::kl) sums.cross = of_q * (sums.cross + sums.q * (to_q - to_p));
    if constexpr (kLoss == DistillationLoss::reverse_kl) sums.cross = of_p * (sums.cross + sums.p * (to_p - to_q));
    if (tempered) sums.one *= fast_exp2(peaks.one - to.one);
    sums.p *= of_p;
    sums.q *= of_q;
    peaks = to;
  }

  template <int kVec>
  __device__ __forceinline__ void add(const Pack<float, kVec>& z, const Pack<float, kVec>& u) {
    float top_z = z[0], top_u = u[0];
    COPPICE_UNROLL
    for (int i = 1; i < kVec; ++i) {
      top_z = fmaxf(top_z, z[i]);
      top_u = fmaxf(top_u, u[i]);
    }
    move_to({fmaxf(peaks.one, top_z * kLog2E), fmaxf(peaks.p, top_z * softened), fmaxf(peaks.q, top_u * softened)});
    PairSums pack{0.0f, 0.0f, 0.0f, 0.0f};
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) {
      const float x_p = fmaf(z[i], softened, -peaks.p), x_q = fmaf(u[i], softened, -peaks.q), e_p = fast_exp2(x_p),
                  e_q = fast_exp2(x_q);
      pack.p += e_p;
      pack.q += e_q;
      if constexpr (kLoss == DistillationLoss::kl) pack.cross += e_q * (x_q - x_p);
      if constexpr (kLoss == DistillationLoss::reverse_kl) pack.cross += e_p * (x_p - x_q);
    }
    if (tempered) {
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) pack.one += fast_exp2(fmaf(z[i], kLog2E, -peaks.one));
    }
    sums = sums + pack;
  }
};

/// A row's factors and offsets; x_p, x_q: exponents with the peaks taken off.
struct PairFactors {
  float softened;
  bool tempered;
  Peaks peaks;
  float ours;                          // scale (1 - w + 2 zeta lse) / sum_1, times e_1
  float teachers_p, teachers_q;        // scale w tau / sum_p, / sum_q
  float log2_sum_p, log2_sum_q, beta;  // of jsd
  float inverse_p, inverse_q;          // 1 / sum_p, 1 / sum_q
  float mean;                          // of h over p, in powers of two as far as it is not the same for all columns
};

/// log2 m of jsd, m = beta q + (1 - beta) p; above that of 0.
__device__ __forceinline__ float log2_mean(float p, float q, float beta) {
  return fast_log2(fmaxf(fmaf(beta, q - p, p), FLT_MIN));
}

template <DistillationLoss kLoss>
__device__ __forceinline__ float derivative(float z, float u, const PairFactors& row) {
  const float x_p = fmaf(z, row.softened, -row.peaks.p), x_q = fmaf(u, row.softened, -row.peaks.q),
              e_p = fast_exp2(x_p);
  const float e_1 = row.tempered ? fast_exp2(fmaf(z, kLog2E, -row.peaks.one)) : e_p, ours = row.ours * e_1;
  if constexpr (kLoss == DistillationLoss::kl) return ours + (row.teachers_p * e_p - row.teachers_q * fast_exp2(x_q));
  if constexpr (kLoss == DistillationLoss::reverse_kl)
    return ours + kLn2 * row.teachers_p * e_p * (x_p - x_q - row.mean);
  const float log2_m = log2_mean(e_p * row.inverse_p, fast_exp2(x_q) * row.inverse_q, row.beta);
  return ours + kLn2 * (1.0f - row.beta) * row.teachers_p * e_p * (x_p - row.log2_sum_p - log2_m - row.mean);
}

template <class T, DistillationLoss kLoss, int kVec, bool kKeep>
__global__ void __launch_bounds__(kMostWalkThreads) distillation_kernel(DistillationParams<T> params) {
  COPPICE_SHARED(Peaks, shared_peaks, ReduceScratch<Peaks>::kCount);
  COPPICE_SHARED(PairSums, shared_sums, ReduceScratch<PairSums>::kCount);
  const int64_t n = blockIdx.x;
  const int columns = static_cast<int>(params.num_vocab);
  T* const row = params.logits + n * params.num_vocab;
  const T* const teacher_row = params.teacher_logits + n * params.num_vocab;
  T* const kept = static_cast<T*>(dynamic_shared());
  T* const teacher_kept = kept + columns;
  const int64_t true_label = params.true_label[n];
  if (true_label == kIgnoredLabel) {
    if (params.write_gradient) store_zeros<kVec>(row, columns);
    if (threadIdx.x == 0) store_pack<1>(params.terms + n, Pack<LossTerms, 1>{});
    return;
  }
  const float z_true = threadIdx.x == 0 ? to_float(load_pack<1>(row + true_label)[0]) : 0.0f;
  const float tau = static_cast<float>(params.settings.temperature), beta = static_cast<float>(params.settings.beta),
              softened = kLog2E / tau;
  const bool tempered = tau != 1.0f;

  OnlinePair<kLoss> online{softened, tempered};
  const Peaks no_peaks = online.peaks;
  Choice choice = no_choice(), teacher_choice = no_choice();
  walk_two_rows<kVec>(row, teacher_row, columns,
                      [&](int v, const Pack<T, kVec>& pack, const Pack<T, kVec>& teacher_pack) {
                        if constexpr (kKeep) {
                          store_shared<kVec>(kept + v, pack);
                          store_shared<kVec>(teacher_kept + v, teacher_pack);
                        }
                        const auto z = floats_of(pack), u = floats_of(teacher_pack);
                        online.add(z, u);
                        if (!params.argmax) return;
                        add_choices(choice, z, v);
                        add_choices(teacher_choice, u, v);
                      });
  ReduceScratch<Peaks> peaks(shared_peaks);
  ReduceScratch<PairSums> scratch(shared_sums);
  online.move_to(block_reduce(online.peaks, JoinPeaks(), no_peaks, peaks));
  PairSums sums = block_reduce(online.sums, Sum(), PairSums{0.0f, 0.0f, 0.0f, 0.0f}, scratch);
  if (!tempered) sums.one = sums.p;

  const float log2_sum_p = log2f(sums.p), log2_sum_q = log2f(sums.q),
              log2_sum_1 = tempered ? log2f(sums.one) : log2_sum_p;
  const float lse = kLn2 * (online.peaks.one + log2_sum_1), scale = static_cast<float>(params.scale),
              weight = static_cast<float>(params.settings.teacher_weight),
              z_loss = static_cast<float>(params.settings.z_loss);
  PairFactors factors{softened,
                      tempered,
                      online.peaks,
                      scale * (1.0f - weight + 2.0f * z_loss * lse) / sums.one,
                      scale * weight * tau / sums.p,
                      scale * weight * tau / sums.q,
                      log2_sum_p,
                      log2_sum_q,
                      beta,
                      1.0f / sums.p,
                      1.0f / sums.q,
                      sums.cross / sums.p};
  const auto walk_again = [&](const auto& body) {
    if constexpr (kKeep)
      walk_columns<kVec>(columns, [&](int v) {
        body(v, floats_of(load_shared<kVec>(kept + v)), floats_of(load_shared<kVec>(teacher_kept + v)));
      });
    else
      walk_two_rows<kVec>(row, teacher_row, columns, [&](int v, const Pack<T, kVec>& z, const Pack<T, kVec>& u) {
        body(v, floats_of(z), floats_of(u));
      });
  };

  float divergence = 0.0f;  // K / tau^2, in powers of two
  if constexpr (kLoss == DistillationLoss::kl) divergence = sums.cross / sums.q - log2_sum_q + log2_sum_p;
  if constexpr (kLoss == DistillationLoss::reverse_kl) divergence = sums.cross / sums.p - log2_sum_p + log2_sum_q;
  if constexpr (kLoss == DistillationLoss::jsd) {
    COPPICE_SHARED(Halves, shared_halves, ReduceScratch<Halves>::kCount);
    ReduceScratch<Halves> halves_scratch(shared_halves);
    Halves halves{0.0f, 0.0f};
    walk_again([&](int, const Pack<float, kVec>& z, const Pack<float, kVec>& u) {
      COPPICE_UNROLL
      for (int i = 0; i < kVec; ++i) {
        const float x_p = fmaf(z[i], softened, -factors.peaks.p), x_q = fmaf(u[i], softened, -factors.peaks.q),
                    p = fast_exp2(x_p) * factors.inverse_p, q = fast_exp2(x_q) * factors.inverse_q,
                    log2_m = log2_mean(p, q, beta);
        halves.q += q * (x_q - log2_sum_q - log2_m);
        halves.p += p * (x_p - log2_sum_p - log2_m);
      }
    });
    halves = block_reduce(halves, Sum(), Halves{0.0f, 0.0f}, halves_scratch);
    divergence = beta * halves.q + (1.0f - beta) * halves.p;
    factors.mean = halves.p;
  }
  if (params.argmax) {
    COPPICE_SHARED(Choice, shared_choices, ReduceScratch<Choice>::kCount);
    ReduceScratch<Choice> choices(shared_choices);
    choice = block_reduce(choice, JoinChoices(), no_choice(), choices);
    teacher_choice = block_reduce(teacher_choice, JoinChoices(), no_choice(), choices);
  }
  if (threadIdx.x == 0) {
    LossTerms terms{kLn2 * (log2_sum_1 - fmaf(z_true, kLog2E, -online.peaks.one)), tau * tau * kLn2 * divergence,
                    z_loss * lse * lse, kLiveRow};
    if (params.argmax && choice.id == true_label) terms.marks += kCorrectRow;
    if (params.argmax && choice.id == teacher_choice.id) terms.marks += kAgreeingRow;
    store_pack<1>(params.terms + n, Pack<LossTerms, 1>{{terms}});
  }
  if (!params.write_gradient) return;
  walk_again([&](int v, const Pack<float, kVec>& z, const Pack<float, kVec>& u) {
    Pack<float, kVec> gradient;
    COPPICE_UNROLL
    for (int i = 0; i < kVec; ++i) gradient[i] = derivative<kLoss>(z[i], u[i], factors);
    take_off(gradient, v, static_cast<int>(true_label), scale * (1.0f - weight));
    store_floats(row + v, gradient);
  });
}

template <class T, DistillationLoss kLoss>
int launch_distillation(const DistillationParams<T>& params, CUstream_st* stream) {
  const bool aligned =
      starts_at_packs(params.logits, params.num_vocab) && starts_at_packs(params.teacher_logits, params.num_vocab);
  return launch_walk<T>(params.num_vocab, 2, aligned, params.write_gradient || kLoss == DistillationLoss::jsd, 0,
                        [&]<int kVec, bool kKeep>(int threads, int64_t shared_bytes) {
                          return launch(distillation_kernel<T, kLoss, kVec, kKeep>, params.num_rows, threads,
                                        shared_bytes, stream, params);
                        });
}

}  // namespace

template <class T>
int distillation(const DistillationParams<T>& params, CUstream_st* stream) {
  if (params.num_rows == 0) return 0;
  switch (params.settings.loss) {
    case DistillationLoss::kl:
      return launch_distillation<T, DistillationLoss::kl>(params, stream);
    case DistillationLoss::reverse_kl:
      return launch_distillation<T, DistillationLoss::reverse_kl>(params, stream);
    default:
      return launch_distillation<T, DistillationLoss::jsd>(params, stream);
  }
}
template int distillation(const DistillationParams<float>&, CUstream_st*);
template int distillation(const DistillationParams<Bf16>&, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
