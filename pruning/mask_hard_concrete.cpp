// hard_concrete: sampled gates of Louizos et al. 2018 (arXiv 1712.01312), z = clip(1.2 sigmoid((log u - log(1-u) + log
// alpha)/beta) - 0.1, 0, 1), driven to the wanted sparsity by a Lagrangian. Default: Sheared-LLaMA's settings (arXiv
// 2310.06694, princeton-nlp/LLM-Shearing l0_module.py): log alpha starts at N(5, 0.01), clamped to +-ln 100 after each
// step; penalty lambda1 (s - t) + lambda2 (s - t)^2 a layer with s the expected sparsity, t ramped by k(p), both lambda
// from 0 by ascent; Adam (0.9, 0.95) at rate 1. Noise is a function of (seed, step, layer, channel). The shape is met
// on average only: kept gates stay below 1 and are merged by the cut, and a short ramp misses the target.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "pruning/mask_methods.h"
#include "pruning/soft_masks.h"
#include "src/base/errors.h"
#include "src/base/random.h"

namespace coppice {
namespace {

constexpr double kLow = -0.1, kStretch = 1.2;  // the stretched interval is (-0.1, 1.1)
constexpr double kStart = 5.0, kStartStd = 0.01, kSmallestNoise = 1e-6;
constexpr double kBeta1 = 0.9, kBeta2 = 0.95;
const double kClamp = std::log(100.0);
constexpr int64_t kForever = std::numeric_limits<int64_t>::max() / 4;  // steps of a rate that stays constant

// offset = -beta log(-low / high) = beta log 11
constexpr HardConcreteRule kRules[] = {
    {.name = "llm_shearing", .beta = 2.0 / 3, .offset = 2.0 / 3 * 2.3978952727983707},
    {.name = "l0", .beta = 2.0 / 3, .offset = 2.0 / 3 * 2.3978952727983707},
    {.name = "flop", .beta = 1.0, .offset = 2.3978952727983707},
};

at::Tensor start_gates(const MaskTask& task) {
  if (task.start_LF.defined())
    return (kStart + kStartStd * standardise_scores(task.start_LF)).to(at::kFloat).contiguous();
  return initial_scores(task.num_layers, task.num_channels, kStartStd, task.seed) + kStart;
}

class HardConcreteMask : public LearnedMask {
 public:
  explicit HardConcreteMask(const MaskTask& task)
      : LearnedMask(task, start_gates(task)),
        rule_(hard_concrete_rule(task.options.hard_concrete)),
        multiplier_2R_(at::zeros({2, rows(scores_LF_).size(0)})),
        gates_(scores_LF_, task.options.gate_lr, kBeta1, kBeta2, 0, kForever),
        multipliers_(multiplier_2R_, task.options.multiplier_lr, kBeta1, kBeta2, 0, kForever) {}

  StepMask training_mask(const MaskMoment& moment) const override {
    if (keeps_all()) return all_ones();  // a sampled gate would be below 1 now and then, whatever its log alpha
    at::Tensor u_LF = at::empty({task_.num_layers, task_.num_channels});
    float* u = u_LF.mutable_data_ptr<float>();
    for (int64_t layer = 0; layer < task_.num_layers; ++layer)
      for (int64_t f = 0; f < task_.num_channels; ++f)
        *u++ = static_cast<float>(random_uniform(task_.seed, Purpose::mask_noise, static_cast<uint64_t>(moment.step),
                                                 static_cast<uint64_t>(layer) << 32 | static_cast<uint64_t>(f)));
    const at::Tensor gate_LF =
        hard_concrete_sample(rule_, scores_LF_, u_LF.clamp(kSmallestNoise, 1.0 - kSmallestNoise));
    return {.mask_LF = gate_LF, .plain_LF = gate_LF.detach()};
  }

  StepMask evaluation_mask(const MaskMoment& moment) const override {
    if (keeps_all()) return all_ones();
    c10::NoGradGuard no_grad;
    const at::Tensor loga_RN = rows(scores_LF_.detach());
    std::vector<int64_t> num_alive;
    for (const at::Tensor& alive_N : hard_concrete_alive(rule_, loga_RN).to(at::kDouble).sum(1).unbind(0))
      num_alive.push_back(std::llround(alive_N.item<double>()));
    at::Tensor gate_LF;
    if (std::string_view(rule_.name) == "llm_shearing") {  // zeros by the wanted count, not the expected one
      std::ranges::fill(num_alive, loga_RN.size(1));
      gate_LF = hard_concrete_evaluate(rule_, loga_RN, num_alive).view(scores_LF_.sizes()) * top_set(moment.schedule.k);
    } else {
      gate_LF = hard_concrete_evaluate(rule_, loga_RN, num_alive).view(scores_LF_.sizes());
    }
    return {.mask_LF = gate_LF, .plain_LF = gate_LF};
  }

  bool evaluates_as_trained() const override { return false; }

  at::Tensor penalty(const MaskMoment& moment) const override {
    return keeps_all() ? at::Tensor() : hard_concrete_penalty(rule_, rows(scores_LF_), multiplier_2R_, target(moment));
  }

  void step(const at::Tensor& grad_LF, const MaskMoment& moment) override {
    c10::NoGradGuard no_grad;
    const at::Tensor gap_R = 1.0 - hard_concrete_alive(rule_, rows(scores_LF_)).mean(1) - target(moment);
    const at::Tensor ascent_2R = at::stack({-gap_R, -gap_R.square()});  // Adam descends
    gates_.step(grad_LF);
    scores_LF_.clamp_(-kClamp, kClamp);
    if (task_.options.multiplier_lr > 0) multipliers_.step(ascent_2R);
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    return {{"scores", scores_LF_},
            {"m", gates_.first_moment()},
            {"v", gates_.second_moment()},
            {"multipliers", multiplier_2R_},
            {"multipliers_m", multipliers_.first_moment()},
            {"multipliers_v", multipliers_.second_moment()}};
  }
  int64_t t() const override { return gates_.t(); }
  void restore(int64_t t) override {
    gates_.restore(t);
    multipliers_.restore(t);
  }

 private:
  /// Wanted sparsity: 0 at first, 1 - K/F when k has ramped.
  double target(const MaskMoment& moment) const {
    return 1.0 - moment.schedule.k / static_cast<double>(task_.num_channels);
  }

  const HardConcreteRule& rule_;
  at::Tensor multiplier_2R_;  // lambda1, lambda2 of each layer (one of all under a global budget)
  ScoreOptimizer gates_, multipliers_;
};

}  // namespace

const HardConcreteRule& hard_concrete_rule(const std::string& name) {
  for (const HardConcreteRule& rule : kRules)
    if (rule.name == name) return rule;
  throw InternalError("no HardConcrete convention '" + name + "'");
}

at::Tensor hard_concrete_sample(const HardConcreteRule& rule, const at::Tensor& loga_RN, const at::Tensor& u_RN) {
  const at::Tensor gate_RN = ((u_RN.log() - (-u_RN).log1p() + loga_RN) / rule.beta).sigmoid();
  return (kStretch * gate_RN + kLow).clamp(0.0, 1.0);
}

at::Tensor hard_concrete_alive(const HardConcreteRule& rule, const at::Tensor& loga_RN) {
  return (loga_RN + rule.offset).sigmoid();
}

at::Tensor hard_concrete_evaluate(const HardConcreteRule& rule, const at::Tensor& loga_RN,
                                  const std::vector<int64_t>& num_alive) {
  if (std::string_view(rule.name) == "l0") return (kStretch * loga_RN.sigmoid() + kLow).clamp(0.0, 1.0);
  return (0.8 * loga_RN / rule.beta).sigmoid() * hard_top_k(loga_RN, num_alive);
}

at::Tensor hard_concrete_penalty(const HardConcreteRule& rule, const at::Tensor& loga_RN,
                                 const at::Tensor& multiplier_2R, double target) {
  const at::Tensor gap_R = 1.0 - hard_concrete_alive(rule, loga_RN).mean(1) - target;
  return (multiplier_2R[0] * gap_R + multiplier_2R[1] * gap_R.square()).sum();
}

std::unique_ptr<LearnedMask> make_hard_concrete(const MaskTask& task) {
  return std::make_unique<HardConcreteMask>(task);
}

}  // namespace coppice
