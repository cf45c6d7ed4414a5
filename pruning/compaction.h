// Compact while learning: channels whose mask has long been nearly 0 leave the model, its gradient and its optimizer
// slots; the mask scores stay whole. A removed channel added at most kDeadMask of what a live one adds, and its score's
// gradient vanishes with its mask; a mask that comes back finds the channel gone. Blocks of the optimizer shrink, so
// its block clip sees other means: equal within a tolerance, not to the bit. L layers, F channels of the source, K
// kept.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "src/model/decoder.h"
#include "src/optim/optimizer.h"

namespace coppice {

inline constexpr double kDeadMask = 1e-6;

class Compaction {
 public:
  /// `after_steps` steps in a row below kDeadMask make a channel dead; 0 = nothing is ever removed.
  Compaction(int64_t num_layers, int64_t num_channels, int64_t after_steps);

  /// Counts one step.
  void watch(const at::Tensor& mask_LF);
  /// Removes the dead, but nothing that hard_LF [L, F] keeps; a layer's width stays a multiple of 16. `model` and
  /// `optimizer` are replaced, gradients are zero. True when anything left.
  bool compact(Model& model, Optimizer& optimizer, const at::Tensor& raw_LF, const at::Tensor& hard_LF);
  /// As compact() had left it: cuts a whole model and its optimizer to these channels, before a checkpoint is read into
  /// them. UserError::bad_file(path) when they do not fit.
  void restore(std::vector<std::vector<int64_t>> living, Model& model, Optimizer& optimizer, const std::string& path);

  /// The rows of a mask [L, F] as the model takes them now; differentiable.
  DecoderMasks masks(const at::Tensor& mask_LF) const;
  /// `whole` with the weights of `compacted` in place of its own; removed channels keep what `whole` has.
  void expand(const Model& compacted, Model& whole) const;

  bool has_removed() const { return has_removed_; }
  /// Channels that are left, per layer, ascending.
  const std::vector<std::vector<int64_t>>& living() const { return living_; }
  double mean_width() const;
  /// How many channels of a 0/1 choice [L, F] are gone.
  int64_t count_removed(const at::Tensor& hard_LF) const;
  /// Steps in a row [L, F] that each mask has been dead: belongs into a checkpoint.
  const at::Tensor& dead_steps() const { return dead_steps_LF_; }

 private:
  void cut(const std::vector<std::vector<int64_t>>& living, Model& model, Optimizer& optimizer);

  int64_t after_steps_;
  at::Tensor dead_steps_LF_;
  std::vector<std::vector<int64_t>> living_;
  bool has_removed_ = false;
};

}  // namespace coppice
