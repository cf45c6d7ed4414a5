#include "src/checkpoint/stored_weights.h"

#include <c10/core/GradMode.h>

namespace coppice {

Model read_model(const StoredWeights& weights) {
  const c10::NoGradGuard no_grad;
  Model model = make_model(weights.config);
  const MasterEditor master = model.arena->edit_master();
  for (const Parameter& parameter : parameter_table(weights.config)) weights.read(parameter, master[parameter.name]);
  return model;
}

}  // namespace coppice
