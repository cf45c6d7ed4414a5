// prune: a model is cut to the FFN channels, heads, layers or dimensions that learned masks or a one-shot score choose.
#pragma once

#include <cstdint>
#include <string>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"

namespace coppice {

struct PruneStage {
  std::string from;
  std::string target = "student";
  std::string axis = "ffn";
  std::string scores;  // "masks" after learn_masks, otherwise a row of the score table
  int64_t calibration_tokens = 65536;
  bool refit = false;
  double refit_damping = 0.01;

  template <class Field>
  void visit_fields(Field& field) {
    field("from", from, Mark::place, "the model to cut");
    field("target", target, Mark::place, "[model.<name>] whose sizes are kept: intermediate_size, or those of `axis`");
    field("axis", axis, Mark::decides,
          "what is cut: ffn (channels), heads (key/value heads with the query heads that share them), layers or hidden "
          "(dimensions of the residual stream)");
    field("scores", scores, Mark::decides, "masks (after learn_masks), or a one-shot score");
    field("calibration_tokens", calibration_tokens, Mark::decides,
          "tokens that scores from activations and a refit see");
    field(
        "refit", refit, Mark::decides,
        "solve anew what writes to the residual stream in place of what was cut (down_proj, o_proj; by axis), so that "
        "it gives what the uncut model gives on calibration text");
    field("refit_damping", refit_damping, Mark::decides,
          "how much the refit holds on to the cut's weights, as a share of the hidden states' mean square");
  }
};

inline constexpr int64_t kCheckSeqLen = 128;  // of the windows that masked and pruned models are compared on

/// Whether the stage reads calibration text, for its scores or for its refit.
bool needs_calibration(const PruneStage& prune);
/// The cut under one budget for all layers that a stage's model descends from, so that its layers' widths are not
/// known; nullptr when there is none.
const Stage* global_cut(const Recipe& recipe, std::string stage_name);

}  // namespace coppice
