#include "src/distributed/comm.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <utility>

#include "src/base/errors.h"
#include "src/tensors/device.h"

namespace coppice {

namespace {

constexpr int64_t kGatherAtMost = 1 << 16;  // bytes of a sum that every rank makes whole: one exchange instead of two

void check_parts(const at::Tensor& part, const at::Tensor& whole, int size, const char* what) {
  COPPICE_CHECK(part.is_contiguous() && whole.is_contiguous(), fmt::format("{}: contiguous tensors expected", what));
  COPPICE_CHECK(part.scalar_type() == whole.scalar_type() && whole.numel() == size * part.numel(),
                fmt::format("{}: {} {} in parts of {} {} for {} ranks", what, whole.numel(),
                            dtype_name(whole.scalar_type()), part.numel(), dtype_name(part.scalar_type()), size));
}

class Alone final : public Comm {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  Pending all_gather(const at::Tensor& part, const at::Tensor& whole, const char* what) override {
    return copy(part, whole, part, whole, what);
  }
  Pending reduce_scatter(const at::Tensor& whole, const at::Tensor& part, const char* what) override {
    return copy(whole, part, part, whole, what);
  }
  Pending gather(const at::Tensor& part, const at::Tensor& whole, int to, const char* what) override {
    check_rank(to, what);
    return copy(part, whole, part, whole, what);
  }
  Pending broadcast(const at::Tensor&, int from, const char* what) override {
    check_rank(from, what);
    return {};
  }

 private:
  static void check_rank(int rank, const char* what) {
    COPPICE_CHECK(rank == 0, fmt::format("{}: rank {} of 1", what, rank));
  }
  static Pending copy(const at::Tensor& from, const at::Tensor& into, const at::Tensor& part, const at::Tensor& whole,
                      const char* what) {
    check_parts(part, whole, 1, what);
    const at::NoGradGuard no_grad;
    if (from.const_data_ptr() != into.const_data_ptr()) into.view({-1}).copy_(from.view({-1}));
    return {};
  }
};

}  // namespace

Pending::~Pending() {
  try {
    wait();
  } catch (...) {  // whoever needs the error calls wait()
  }
}

void Pending::wait() {
  if (const std::function<void()> finish = std::exchange(finish_, nullptr)) finish();
}

std::unique_ptr<Comm> alone() { return std::make_unique<Alone>(); }

void sum_over(Comm& comm, const at::Tensor& value, const char* what) {
  COPPICE_CHECK(
      value.scalar_type() == at::kFloat || value.scalar_type() == at::kDouble || value.scalar_type() == at::kLong,
      fmt::format("{}: a sum in {}", what, dtype_name(value.scalar_type())));
  COPPICE_CHECK(value.is_contiguous(), fmt::format("{}: a contiguous tensor expected", what));
  if (comm.size() == 1) return;  // nothing to add
  const at::NoGradGuard no_grad;
  const int64_t ranks = comm.size(), count = value.numel();
  const at::Tensor flat = value.detach().view({-1});
  if (static_cast<int64_t>(value.nbytes()) <= kGatherAtMost) {
    const at::Tensor all = at::empty({ranks, count}, flat.options());
    comm.all_gather(flat, all, what).wait();
    flat.copy_(all[0]);
    for (int64_t rank = 1; rank < ranks; ++rank) flat.add_(all[rank]);
    return;
  }
  const int64_t part = (count + ranks - 1) / ranks;
  const at::Tensor padded = at::zeros({ranks * part}, flat.options());
  padded.narrow(0, 0, count).copy_(flat);
  const at::Tensor sum = at::empty({part}, flat.options());
  comm.reduce_scatter(padded, sum, what).wait();
  comm.all_gather(sum, padded, what).wait();
  flat.copy_(padded.narrow(0, 0, count));
}

void sum_over(Comm& comm, std::span<double> values, const char* what) {
  sum_over(comm, at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kDouble), what);
}

}  // namespace coppice
