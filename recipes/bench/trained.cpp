#include "recipes/bench/trained.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "src/base/errors.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

constexpr double kGradient = 1e-4;  // of an element

Model model_with_gradient(const ModelConfig& config, const Placement& on) {
  Model model = make_model(config, on);
  make_weights(model);
  model.arena->enable_gradient();
  return model;
}

}  // namespace

void make_weights(Model& model) {
  const MasterEditor master = model.arena->edit_master();
  for (const Parameter& parameter : parameter_table(model.config)) {
    const at::Tensor value = master[parameter.name];
    if (parameter.kind == ParameterKind::norm)
      value.fill_(1);
    else if (parameter.kind == ParameterKind::bias)
      value.zero_();
    else
      value.normal_(0, 1 / std::sqrt(static_cast<double>(parameter.shape.back())));
  }
}

Trained::Trained(const ModelConfig& config, const Placement& on, const char* optimizer_name)
    : model(model_with_gradient(config, on)),
      optimizer({.optimizer = optimizer_name, .lr = 1e-4}, *model.arena, /*warmup_steps=*/10,
                /*total_steps=*/1'000'000) {}

void Trained::start_over() {
  make_weights(model);
  for (const std::string& slot : optimizer.slot_names())
    for (const ArenaEntry& entry : model.arena->layout().entries) optimizer.slot(slot, entry.name).zero_();
  optimizer.restore(0, 0);
}

void Trained::fill_gradient() const {
  for (size_t unit = 0; unit < model.arena->layout().units.size(); ++unit)
    model.arena->unit_gradient(unit).normal_(0, kGradient);
}

at::Tensor Trained::weights() const {
  const at::Tensor working = model.arena->unit_working(0);  // of a split master there is no other
  return working.defined() ? working : model.arena->unit_master(0);
}

void Trained::step(StepVote vote) { COPPICE_CHECK(optimizer.step(*alone(), vote).applied, "the step was skipped"); }

}  // namespace coppice
