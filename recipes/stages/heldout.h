// Looks at text that is not trained on (eval_split) while a stage trains: the same windows each time, spread evenly
// over the domains.
#pragma once

#include <cstdint>
#include <vector>

#include "recipes/language/training_options.h"
#include "recipes/stages/prepare_data.h"
#include "src/data/windows.h"
#include "src/model/decoder.h"

namespace coppice {

class Heldout {
 public:
  /// `device`: where the model computes.
  Heldout(const PreparedData& data, const TrainingOptions& options, at::Device device);
  /// Whether step `step` (from 1) ends with a look.
  bool due(int64_t step) const;
  /// Mean next-token loss, nats a token, under `masks`; NaN without such text.
  double loss(const Model& model, const DecoderMasks& masks = {}) const;

 private:
  std::vector<Batch> batches_;
  int64_t num_steps_ = 0, every_ = 1;
};

}  // namespace coppice
