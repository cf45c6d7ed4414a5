// Mixed cross-entropy of rows, one block of 128 threads each: the row is staged in shared memory, (largest, sum) is
// kept online per thread and joined once, the gradient comes from shared memory.
#include "src/tensors/kernels/cuda_dialect.h"
#include "tests/executor/subjects.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 128;

/// log-sum-exp = largest + log(sum).
struct Exponentials {
  float largest;
  float sum;
};
struct JoinExponentials {
  __device__ Exponentials operator()(const Exponentials& a, const Exponentials& b) const {
    const float largest = fmaxf(a.largest, b.largest);
    if (largest == -INFINITY) return {largest, 0.0f};
    return {largest, a.sum * expf(a.largest - largest) + b.sum * expf(b.largest - largest)};
  }
};

template <Slip slip>
__device__ Exponentials joined(Exponentials value, Exponentials* shared) {
  const Exponentials neutral{-INFINITY, 0.0f};
  if constexpr (slip != Slip::no_barrier_before_join) {
    ReduceScratch<Exponentials> scratch(shared);
    return block_reduce(value, JoinExponentials(), neutral, scratch);
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  value = warp_reduce(value, JoinExponentials());
  if (lane == 0) shared[warp] = value;                    // race: join writes
  value = lane < kThreads / 32 ? shared[lane] : neutral;  // race: join reads
  return warp_reduce(value, JoinExponentials());
}

template <Slip slip, class T>
__global__ void __launch_bounds__(kThreads) label_rows_kernel(LabelRowsParams<T> params) {
  constexpr int kPack = 16 / sizeof(T);
  COPPICE_SHARED(Exponentials, shared, ReduceScratch<Exponentials>::kCount);
  T* const row = static_cast<T*>(dynamic_shared());
  const int vocab_size = static_cast<int>(params.vocab_size);
  const int64_t n = blockIdx.x;
  const int64_t start = slip == Slip::offset_in_32_bits
                            ? static_cast<int>(blockIdx.x * static_cast<unsigned>(vocab_size))
                            : n * params.vocab_size;
  const T* const logits = params.logits + start;
  for (int v = static_cast<int>(threadIdx.x) * kPack; v < vocab_size; v += kThreads * kPack)
    *reinterpret_cast<Pack<T, kPack>*>(row + v) = load_pack<kPack>(logits + v);  // race: staging writes
  if constexpr (slip != Slip::no_barrier_after_staging) __syncthreads();
  Exponentials mine{-INFINITY, 0.0f};
  for (int v = threadIdx.x; v < vocab_size; v += kThreads)
    mine = JoinExponentials()(mine, {to_float(row[v]), 1.0f});  // race: staging reads
  if (slip == Slip::load_past_row && threadIdx.x == 0) {
    const auto past = load_pack<kPack>(logits + vocab_size);  // past the row
    for (int i = 0; i < kPack; ++i) mine = JoinExponentials()(mine, {to_float(past[i]), 1.0f});
  }
  const Exponentials all = joined<slip>(mine, shared);
  const float log_sum_exp = all.largest + logf(all.sum);
  const int label = static_cast<int>(params.label[n]);
  const int teacher = static_cast<int>(params.teacher[n]) + (slip == Slip::label_off_by_one ? 1 : 0);
  const float weight = params.teacher_weight;
  if (threadIdx.x == 0)
    params.loss[n] = log_sum_exp - (weight * to_float(row[teacher]) + (1.0f - weight) * to_float(row[label]));
  for (int v = static_cast<int>(threadIdx.x) * kPack; v < vocab_size; v += kThreads * kPack) {
    Pack<T, kPack> grad;
    for (int i = 0; i < kPack; ++i) {
      const float target = (v + i == teacher ? weight : 0.0f) + (v + i == label ? 1.0f - weight : 0.0f);
      grad[i] = from_float<T>(fast_exp(to_float(row[v + i]) - log_sum_exp) - target);
    }
    store_pack<kPack>(params.grad + start + v, grad);  // race: neighbour's row
  }
  if (slip == Slip::store_past_row && threadIdx.x == 0)
    params.grad[start + vocab_size] = from_float<T>(0.0f);  // past the next row
}

}  // namespace

template <class T>
int label_rows(const LabelRowsParams<T>& params, Slip slip, CUstream_st* stream) {
  auto* kernel = label_rows_kernel<Slip::none, T>;
  if (slip == Slip::no_barrier_after_staging) kernel = label_rows_kernel<Slip::no_barrier_after_staging, T>;
  if (slip == Slip::no_barrier_before_join) kernel = label_rows_kernel<Slip::no_barrier_before_join, T>;
  if (slip == Slip::load_past_row) kernel = label_rows_kernel<Slip::load_past_row, T>;
  if (slip == Slip::store_past_row) kernel = label_rows_kernel<Slip::store_past_row, T>;
  if (slip == Slip::label_off_by_one) kernel = label_rows_kernel<Slip::label_off_by_one, T>;
  if (slip == Slip::offset_in_32_bits) kernel = label_rows_kernel<Slip::offset_in_32_bits, T>;
  return launch(kernel, params.num_rows, kThreads, params.vocab_size * static_cast<int64_t>(sizeof(T)), stream, params);
}
template int label_rows(const LabelRowsParams<float>&, Slip, CUstream_st*);
template int label_rows(const LabelRowsParams<Bf16>&, Slip, CUstream_st*);

}  // namespace coppice::COPPICE_EXECUTION
