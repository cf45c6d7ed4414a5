#include "src/tensors/kernels/split_master.h"

#include "src/tensors/kernels/parallel_rows.h"

namespace coppice {

namespace {

template <class Body>
void for_each_element(int64_t size, const Body& body) {
  parallel_rows(size, threads_for(size), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace

void split_masters_cpu(const SplitMastersParams& params) {
  for_each_element(params.size, [&](int64_t i) {
    const SplitMaster split = split_master(params.master[i]);
    params.working[i] = split.working;
    if (params.remainder != nullptr) params.remainder[i] = split.remainder;
  });
}

void join_masters_cpu(const JoinMastersParams& params) {
  for_each_element(params.size, [&](int64_t i) {
    const int64_t from = params.places != nullptr ? params.places[i] : i;
    params.master[i] = join_master({params.working[from], params.remainder[from]});
  });
}

}  // namespace coppice
