#include "src/data/teacher_signal.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/tensors/transfers.h"

namespace coppice {

TeacherSignal stored_signal(const std::vector<const LabelCache*>& caches, const Batch& batch,
                            const SignalRequest& request, bool some) {
  TeacherSignal signal{.labels_below = labels_below(caches)};
  if (reads_some_ids(request.loss))
    signal.top = request.loss == "sample"   ? lookup_draws(caches, batch)
                 : request.loss == "hybrid" ? lookup_hybrid(caches, batch)
                                            : lookup_top_k(caches, batch);
  else
    signal.label_BT = lookup_labels(caches, batch);
  send({&signal.label_BT, &signal.top.id_NK, &signal.top.logp_NK, &signal.top.tail_logp_N}, batch.token_BT.device());
  if (some) return signal;
  const at::Tensor label_BT =
      signal.label_BT.defined() ? signal.label_BT : signal.top.id_NK.select(1, 0).reshape(batch.token_BT.sizes());
  signal.faults = batch.true_label_BT.ge(0).logical_and(label_BT.lt(0)).sum();
  return signal;
}

void check_labelled(int64_t faults, const std::string& teacher) {
  COPPICE_CHECK(faults == 0, fmt::format("{} positions of a batch have no label of '{}'", faults, teacher));
}

}  // namespace coppice
