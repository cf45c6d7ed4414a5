// A model with an optimizer, for measurements: weights are made where it lies, which of billions takes no time there.
#pragma once

#include "src/model/decoder.h"
#include "src/optim/optimizer.h"

namespace coppice {

/// Weights distributed as initialise_parameters() has them, from torch's generator of the device.
void make_weights(Model& model);

/// With a gradient.
struct Trained {
  Model model;
  Optimizer optimizer;
  Trained(const ModelConfig& config, const Placement& on, const char* optimizer_name);

  /// Weights anew, slots and counters as at the start.
  void start_over();
  /// A random gradient, whose norm is below what skips a step up to 1e10 parameters.
  void fill_gradient() const;
  /// InternalError for a step that is skipped.
  void step(StepVote vote);
  void step() { step(StepVote(0, model.arena->placement().device)); }
  /// What the model computes with, of the first unit.
  at::Tensor weights() const;
};

}  // namespace coppice
