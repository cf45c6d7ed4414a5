// learn_masks: masks over the FFN channels, heads or layers, learned together with the weights.
#pragma once

#include <string>

#include "pruning/mask_options.h"
#include "recipes/language/stage.h"
#include "recipes/language/training_options.h"

namespace coppice {

struct LearnMasksStage {
  std::string from;
  std::string target = "student";  // [model.*] whose sizes are the budget
  std::string axis = "ffn";
  MaskOptions masks;
  TrainingOptions training;

  template <class Field>
  void visit_fields(Field& field) {
    field("from", from, Mark::place, "the dense source");
    field("target", target, Mark::place, "[model.<name>] whose sizes are kept: intermediate_size, or those of `axis`");
    field("axis", axis, Mark::decides,
          "what has masks: ffn (channels), heads (key/value heads with the query heads that share them) or layers");
    masks.visit_fields(field);
    training.visit_fields(field);
  }
};

Json run_learn_masks(StageContext& context);

}  // namespace coppice
