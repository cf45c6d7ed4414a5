// The knobs of learned masks, and the course of k and epsilon over a stage. p in [0, 1] is the share of its steps done;
// F channels, K kept.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "src/base/option_mark.h"

namespace coppice {

struct MaskOptions {
  std::string mask_method = "soft_top_k";
  double score_lr = 0.05;  // Adam on raw scores
  std::string score_init = "activation";
  double score_init_std = 0.01;
  int64_t calibration_tokens = 16384;
  std::string score_scale = "standardise";
  double k_ramp = 0.2;         // share of the steps over which k falls from F to K
  double top_k_epsilon = 1.0;  // start of the anneal
  double final_top_k_epsilon = 0.05;
  std::string anneal = "geometric";
  double anneal_end = 0.9;  // share of the steps at which epsilon reaches its end
  std::string mask_form = "plain_then_top";
  std::string budget = "layer";
  int64_t round_to = 1;
  bool freeze_weights = false;
  int64_t compact_after = 0;
  std::string on_collapse = "stop";
  int64_t descent_rounds = 20;
  bool descent_scaled = true;
  std::string descent_start = "zero";
  std::string hard_concrete = "llm_shearing";
  double gate_lr = 1.0;
  double multiplier_lr = 1.0;

  template <class Field>
  void visit_fields(Field& field) {
    field("mask_method", mask_method, Mark::decides,
          "how scores become masks: soft_top_k, coordinate_descent, hard_concrete or straight_through");
    field("score_lr", score_lr, Mark::decides, "learning rate of the mask scores (Adam, no decay)");
    field(
        "score_init", score_init, Mark::decides,
        "start of the raw scores: the standardised values of a one-shot score (activation, magnitude, ...), or noise");
    field("score_init_std", score_init_std, Mark::decides, "start noise of the raw scores");
    field("calibration_tokens", calibration_tokens, Mark::decides,
          "tokens that score_init and the overlap with the activation choice see");
    field("score_scale", score_scale, Mark::decides,
          "standardise (mean 0, deviation 1 a layer, so epsilon is a pure number) or raw");
    field("k_ramp", k_ramp, Mark::decides, "share of the steps over which k falls from all channels to the kept ones");
    field("top_k_epsilon", top_k_epsilon, Mark::decides, "entropy term of Soft-Top-K while k ramps");
    field("final_top_k_epsilon", final_top_k_epsilon, Mark::decides, "its value at the end; smaller = more binary");
    field("anneal", anneal, Mark::decides,
          "its way from one to the other: geometric, linear, or constant (stays at top_k_epsilon)");
    field("anneal_end", anneal_end, Mark::decides, "share of the steps at which top_k_epsilon reaches its end");
    field("mask_form", mask_form, Mark::decides,
          "plain, top or plain_then_top (top in the last tenth); of soft_top_k and coordinate_descent");
    field("budget", budget, Mark::decides,
          "layer (each keeps intermediate_size) or global (their mean; widths then differ, which other programs may "
          "not read)");
    field("round_to", round_to, Mark::decides,
          "kept channels of a layer are a multiple of this, for instance 64, 128 or 256; 1 = any number");
    field("freeze_weights", freeze_weights, Mark::decides, "learn scores alone");
    field("compact_after", compact_after, Mark::decides,
          "channels whose mask was below 1e-6 for so many steps leave the model at the next checkpoint; 0 = never");
    field("on_collapse", on_collapse, Mark::cadence,
          "a mask that does not decide, or of FFN channels one no better than a random one: stop (exit 6) or warn");
    field("descent_rounds", descent_rounds, Mark::decides, "rounds of coordinate_descent");
    field("descent_scaled", descent_scaled, Mark::decides,
          "coordinate_descent starts from epsilon 4 and lowers it by 0.7 a round (CoDA) instead of keeping it");
    field("descent_start", descent_start, Mark::decides, "first b of coordinate_descent: zero or minus_s");
    field("hard_concrete", hard_concrete, Mark::decides, "convention of the gates: llm_shearing, l0 or flop");
    field("gate_lr", gate_lr, Mark::decides, "learning rate of hard_concrete's gates (Adam, constant)");
    field("multiplier_lr", multiplier_lr, Mark::decides, "ascent rate of its two Lagrangian multipliers (Adam)");
  }
};

/// UserError::recipe for a value outside its range or an unknown name; where(key) is the place of a key, for instance
/// file:line.
void check_mask_options(const MaskOptions& options, const std::function<std::string(const char* key)>& where);

/// k and epsilon at share p of the steps: k falls linearly over k_ramp, epsilon by `anneal` from there to anneal_end.
struct MaskSchedule {
  double k = 0, epsilon = 0;
  bool top = false;  // multiply by the hard top-K set
};
MaskSchedule mask_schedule(const MaskOptions& options, double p, int64_t num_channels, int64_t num_kept);

}  // namespace coppice
