// Weights that lie in files of another program, read a parameter at a time: into a model, or on into a folder of ours
// without a model between.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>

#include "src/base/json.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"

namespace coppice {

struct StoredWeights {
  ModelConfig config;
  /// Reads one of parameter_table(config) into a contiguous float32 tensor of its shape on the CPU. UserError::bad_file
  /// for values that a model cannot have.
  std::function<void(const Parameter& parameter, const at::Tensor& into)> read;
};

Model read_model(const StoredWeights& weights, const Placement& placement = {});
/// As save_model() of that model, holding one parameter at a time.
void save_model(const std::filesystem::path& folder, const StoredWeights& weights, Json facts);

}  // namespace coppice
