// Masters into halves and back, one pack of four a thread; the halves of single places one by one. 4 bytes read and 4
// written an element, of places 8 more.
#include "src/tensors/kernels/split_master.h"

#include "src/tensors/kernels/cuda_dialect.h"

namespace coppice::COPPICE_EXECUTION {
namespace {

constexpr int kThreads = 512;
constexpr int kPack = 4;

/// The first element of the calling thread's pack; may lie behind the last.
template <int kVec>
__device__ __forceinline__ int64_t place_of_thread() {
  return (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kVec;
}

template <int kVec>
__global__ void __launch_bounds__(kThreads) split_masters_kernel(SplitMastersParams params) {
  const int64_t at = place_of_thread<kVec>();
  if (at >= params.size) return;
  const auto master = load_pack<kVec>(params.master + at);
  Pack<Bf16, kVec> working;
  Pack<int16_t, kVec> remainder;
  COPPICE_UNROLL
  for (int i = 0; i < kVec; ++i) {
    const SplitMaster split = split_master(master[i]);
    working[i] = split.working;
    remainder[i] = split.remainder;
  }
  store_pack<kVec>(params.working + at, working);
  if (params.remainder != nullptr) store_pack<kVec>(params.remainder + at, remainder);
}

template <int kVec>
__global__ void __launch_bounds__(kThreads) join_masters_kernel(JoinMastersParams params) {
  const int64_t at = place_of_thread<kVec>();
  if (at >= params.size) return;
  int64_t from = at;
  if constexpr (kVec == 1)
    if (params.places != nullptr) from = load_pack<1>(params.places + at)[0];
  const auto working = load_pack<kVec>(params.working + from);
  const auto remainder = load_pack<kVec>(params.remainder + from);
  Pack<float, kVec> master;
  COPPICE_UNROLL
  for (int i = 0; i < kVec; ++i) master[i] = join_master({working[i], remainder[i]});
  store_pack<kVec>(params.master + at, master);
}

template <class T>
bool starts_pack(const T* start) {
  return reinterpret_cast<uintptr_t>(start) % (kPack * sizeof(T)) == 0;
}

/// One thread a pack, or an element.
template <class Params>
int launch_over_elements(void (*packs)(Params), void (*single)(Params), const Params& params, bool in_packs,
                         CUstream_st* stream) {
  if (params.size == 0) return 0;
  const int64_t a_block = int64_t{kThreads} * (in_packs ? kPack : 1), blocks = (params.size + a_block - 1) / a_block;
  return launch(in_packs ? packs : single, blocks, kThreads, 0, stream, params);
}

/// Whether master and halves of so many elements lie in packs.
template <class Params>
bool in_packs(const Params& params) {
  return params.size % kPack == 0 && starts_pack(params.master) && starts_pack(params.working) &&
         starts_pack(params.remainder);
}

}  // namespace

int split_masters(const SplitMastersParams& params, CUstream_st* stream) {
  return launch_over_elements(split_masters_kernel<kPack>, split_masters_kernel<1>, params, in_packs(params), stream);
}

int join_masters(const JoinMastersParams& params, CUstream_st* stream) {
  return launch_over_elements(join_masters_kernel<kPack>, join_masters_kernel<1>, params,
                              params.places == nullptr && in_packs(params), stream);
}

}  // namespace coppice::COPPICE_EXECUTION
