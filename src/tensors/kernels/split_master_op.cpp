#include "src/base/errors.h"
#include "src/tensors/kernels/launch.h"
#include "src/tensors/kernels/split_master.h"
#include "src/tensors/master_halves.h"

namespace coppice {

void split_master_into(const at::Tensor& master, const at::Tensor& working, const at::Tensor& remainder) {
  COPPICE_CHECK(working.numel() == master.numel() && (!remainder.defined() || remainder.numel() == master.numel()),
                "halves of another size than the master");
  const SplitMastersParams params{.master = elements<float>(master),
                                  .working = mutable_elements<Bf16>(working),
                                  .remainder = mutable_elements<int16_t>(remainder),
                                  .size = master.numel()};
  COPPICE_RUN(master, split_masters, params);
}

void join_master_into(const at::Tensor& working, const at::Tensor& remainder, const at::Tensor& master,
                      const at::Tensor& places) {
  COPPICE_CHECK(remainder.numel() == working.numel() && master.numel() == (places.defined() ? places : working).numel(),
                "halves of another size than the master");
  const JoinMastersParams params{.working = elements<Bf16>(working),
                                 .remainder = elements<int16_t>(remainder),
                                 .places = elements<int64_t>(places),
                                 .master = mutable_elements<float>(master),
                                 .size = master.numel()};
  COPPICE_RUN(master, join_masters, params);
}

}  // namespace coppice
