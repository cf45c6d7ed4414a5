#include "recipes/stages/heldout.h"

#include <algorithm>
#include <cmath>

#include "src/data/batch_device.h"
#include "student/targets.h"

namespace coppice {

Heldout::Heldout(const PreparedData& data, const TrainingOptions& options, at::Device device)
    : num_steps_(options.steps()),
      every_(options.eval_steps > 0 ? options.eval_steps : std::max<int64_t>(1, options.steps() / 10)) {
  if (options.eval_tokens == 0) return;
  const auto& split = data.split(options.eval_split);
  const auto windows = std::max<int64_t>(1, options.eval_tokens / options.seq_len / static_cast<int64_t>(split.size()));
  for (const auto& [domain, shards] : split) {
    WindowReader reader(shards, options.seq_len, options.document_mask, windows);
    for (Batch batch; reader.next(options.micro_rows(), batch);)
      batches_.push_back(on_device(std::move(batch), device));
  }
}

bool Heldout::due(int64_t step) const { return !batches_.empty() && (step % every_ == 0 || step == num_steps_); }

double Heldout::loss(const Model& model, const DecoderMasks& masks) const {
  LossSums total;
  for (const Batch& batch : batches_)
    total.add(
        evaluate_batch(model, batch, make_targets(batch, {}, KdOptions{.teacher_weight = 0, .z_loss = 0}), masks));
  return total.num_live == 0 ? std::nan("") : total.ce / static_cast<double>(total.num_live);
}

}  // namespace coppice
