// One block: a thread adds up every 1024th row in double, then the threads are joined in an order that is always the
// same. 16 bytes a row.
#include "src/tensors/kernels/loss_terms.h"

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 1024;

struct Marks {
  int live, correct, agreeing;
};
__device__ __forceinline__ Marks operator+(const Marks& a, const Marks& b) {
  return {a.live + b.live, a.correct + b.correct, a.agreeing + b.agreeing};
}

__global__ void __launch_bounds__(kThreads) add_loss_terms_kernel(AddLossTermsParams params) {
  COPPICE_SHARED(double, shared_sums, ReduceScratch<double>::kCount);
  COPPICE_SHARED(Marks, shared_marks, ReduceScratch<Marks>::kCount);
  ReduceScratch<double> sums(shared_sums);
  ReduceScratch<Marks> counts(shared_marks);
  double ce = 0.0, kd = 0.0, z = 0.0;
  Marks marks{0, 0, 0};
  for (int64_t row = threadIdx.x; row < params.num_rows; row += kThreads) {
    const LossTerms terms = load_pack<1>(params.terms + row)[0];
    ce += terms.ce;
    kd += terms.kd;
    z += terms.z;
    marks = marks +
            Marks{(terms.marks & kLiveRow) != 0, (terms.marks & kCorrectRow) != 0, (terms.marks & kAgreeingRow) != 0};
  }
  ce = block_reduce(ce, Sum(), 0.0, sums);
  kd = block_reduce(kd, Sum(), 0.0, sums);
  z = block_reduce(z, Sum(), 0.0, sums);
  marks = block_reduce(marks, Sum(), Marks{0, 0, 0}, counts);
  if (threadIdx.x != 0) return;
  const double all[kNumLossTermSums] = {ce,
                                        kd,
                                        z,
                                        static_cast<double>(marks.live),
                                        static_cast<double>(marks.correct),
                                        static_cast<double>(marks.agreeing)};
  COPPICE_UNROLL
  for (int i = 0; i < kNumLossTermSums; ++i)
    store_pack<1>(params.sum + i, Pack<double, 1>{{load_pack<1>(params.sum + i)[0] + all[i]}});
}

}  // namespace

int add_loss_terms(const AddLossTermsParams& params, CUstream_st* stream) {
  return launch(add_loss_terms_kernel, 1, kThreads, 0, stream, params);
}

}  // namespace coppice::COPPICE_EXECUTION
