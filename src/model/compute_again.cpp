// Recomputation as one autograd function a stretch. Forward keeps no graph; backward makes the norm's output again,
// runs the stretch with a graph of its own that begins at copies of its inputs without a history, and walks that back.
// Our operations add the gradients of weights to the arena in their backward alone, so each is added once.
#include "src/model/compute_again.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <iterator>

#include "src/model/recompute.h"
#include "src/tensors/kernels/op_checks.h"

namespace coppice {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kNames[] = {"none", "elementwise", "gate_up", "layer"};
static_assert(std::size(kNames) == static_cast<size_t>(Recompute::count));

/// A stretch as an autograd function holds it.
struct HeldStretch : torch::CustomClassHolder {
  explicit HeldStretch(Stretch stretch_) : stretch(std::move(stretch_)) {}
  Stretch stretch;
};

at::Tensor linear_of(const Stretch& stretch, const at::Tensor& entering_NI) {
  return linear(entering_NI, stretch.linear.value, stretch.linear.grad, stretch.bias.value, stretch.bias.grad);
}

/// The output of the norm at the stretch's beginning, by the loop that made it: adding minus zero changes no number,
/// and the loop of a norm that adds nothing may take its sum in another order.
at::Tensor norm_again(const Stretch& stretch, const at::Tensor& residual_ND) {
  const at::NoGradGuard no_grad;
  at::Tensor nothing_ND;
  if (stretch.norm_adds)
    nothing_ND = at::full({1, residual_ND.size(1)}, -0.0, residual_ND.options()).expand_as(residual_ND);
  return residual_rms_norm(residual_ND, nothing_ND, stretch.norm_weight_D, /*weight_grad_D=*/{}, stretch.eps).normed_ND;
}

/// The same numbers without their history, and the beginning of another one where a gradient is wanted.
at::Tensor leaf_of(const at::Tensor& tensor, bool wants_gradient) {
  return tensor.defined() ? tensor.detach().set_requires_grad(wants_gradient) : tensor;
}

struct RunAgainFunction : torch::autograd::Function<RunAgainFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual_ND, const at::Tensor& normed_ND,
                               const at::Tensor& ffn_mask_F, const at::Tensor& head_mask_G,
                               const at::Tensor& stream_mask_D, const c10::intrusive_ptr<HeldStretch>& held) {
    const LayerMasks masks{given(ffn_mask_F), given(head_mask_G), given(stream_mask_D)};
    ctx->save_for_backward({residual_ND, masks.ffn_F, masks.heads_G, masks.stream_D});
    ctx->saved_data["stretch"] = c10::IValue::make_capsule(held);
    const StretchOutput output = held->stretch.run({residual_ND, normed_ND}, masks);
    variable_list outputs = {linear_of(held->stretch, output.entering_NI)};
    if (output.residual_ND.defined()) outputs.push_back(output.residual_ND);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto held = c10::static_intrusive_pointer_cast<HeldStretch>(ctx->saved_data["stretch"].toCapsule());
    const Stretch& stretch = held->stretch;
    const at::AutoGradMode with_graph(true);
    const ResidualNorm norm{leaf_of(saved[0], ctx->needs_input_grad(0)), leaf_of(norm_again(stretch, saved[0]), true)};
    const LayerMasks masks{leaf_of(saved[1], ctx->needs_input_grad(2)), leaf_of(saved[2], ctx->needs_input_grad(3)),
                           leaf_of(saved[3], ctx->needs_input_grad(4))};
    const StretchOutput output = stretch.run(norm, masks);
    variable_list ends = {output.entering_NI},
                  end_grads = {linear_backward(grads[0], output.entering_NI.detach(), stretch.linear.value,
                                               stretch.linear.grad, stretch.bias.grad)};
    if (output.residual_ND.defined()) {
      ends.push_back(output.residual_ND);
      end_grads.push_back(grads[1]);
    }
    torch::autograd::backward(ends, end_grads);
    const auto grad_of = [](const at::Tensor& leaf) { return leaf.defined() ? leaf.grad() : at::Tensor(); };
    return {grad_of(norm.residual_ND), grad_of(norm.normed_ND), grad_of(masks.ffn_F),
            grad_of(masks.heads_G),    grad_of(masks.stream_D), at::Tensor()};
  }
};

}  // namespace

const char* recompute_name(Recompute recompute) { return kNames[static_cast<size_t>(recompute)]; }

std::optional<Recompute> find_recompute(std::string_view name) {
  const auto* const found = std::ranges::find(kNames, name);
  if (found == std::end(kNames)) return std::nullopt;
  return static_cast<Recompute>(found - std::begin(kNames));
}

std::vector<std::string> recompute_names() { return {std::begin(kNames), std::end(kNames)}; }

StretchEnd run_and_keep(const Stretch& stretch, const ResidualNorm& norm, const LayerMasks& masks) {
  const StretchOutput output = stretch.run(norm, masks);
  return {linear_of(stretch, output.entering_NI), output.residual_ND.defined() ? output.residual_ND : norm.residual_ND};
}

StretchEnd run_to_run_again(const Stretch& stretch, const ResidualNorm& norm, const LayerMasks& masks) {
  const variable_list outputs =
      RunAgainFunction::apply(norm.residual_ND, norm.normed_ND, or_absent(masks.ffn_F), or_absent(masks.heads_G),
                              or_absent(masks.stream_D), c10::make_intrusive<HeldStretch>(stretch));
  return {outputs[0], outputs.size() > 1 ? outputs[1] : norm.residual_ND};
}

}  // namespace coppice
