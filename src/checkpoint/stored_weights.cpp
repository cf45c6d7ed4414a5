#include "src/checkpoint/stored_weights.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

namespace coppice {

Model read_model(const StoredWeights& weights, const Placement& placement) {
  const c10::NoGradGuard no_grad;
  Model model = make_model(weights.config, placement);
  const MasterEditor master = model.arena->edit_master();
  for (const Parameter& parameter : parameter_table(weights.config)) {
    const at::Tensor value = master[parameter.name],
                     on_host = value.is_cpu() ? value : at::empty(value.sizes(), at::kFloat);
    weights.read(parameter, on_host);
    if (!value.is_cpu()) value.copy_(on_host);
  }
  return model;
}

}  // namespace coppice
