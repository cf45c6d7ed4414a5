// Draws stand for a distribution: many of them must say what it says.
#pragma once

#include <string>

#include "student/targets.h"

namespace coppice {

/// The shares of some thousand draws from each row's distribution, with weights where the proposal is another one, of
/// loss hybrid of what its most probable ids leave over, beside these; the same at every call.
TopK many_draws(const std::string& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, double temperature,
                double proposal_temperature);

/// The gradient of a loss that reads draws over many of them from another row's distribution, plain and, of loss
/// sample, weighted, is that of the same targets under loss kl but for the error of a mean of so many. Right ones fail
/// with a probability of 1e-12 at most. `like` has loss, true labels and temperature. Throws InternalError where it is
/// further off.
void check_draws(const HeadLoss& loss, const at::Tensor& hidden_ND, const at::Tensor& head_VD, const Targets& like,
                 double scale);

}  // namespace coppice
