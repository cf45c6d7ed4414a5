// Checkpoints: a folder committed by rename, its manifest sealed, tensors in HDF5 written by the skeleton method.
//   <stage>/ckpt/step-00001200/{part-00000.h5, ..., manifest.json}     <stage>/model/{part-00000.h5, ...,
//   manifest.json}
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/checkpoint/tensor_folder.h"
#include "src/checkpoint/tensor_folder_writer.h"
#include "src/model/decoder.h"

namespace coppice {

/// One tensor a parameter, in the order of the table and of its unit: prefix + its name, and what `tensor_of` gives for
/// that name (the master's or a slot's values).
TensorSource parameter_source(const ModelConfig& config, const std::string& prefix,
                              std::function<at::Tensor(const std::string&)> tensor_of);

// -- models --
/// format coppice.model; facts must not hold "model" (the config is added).
void save_model(const std::filesystem::path& folder, const Model& model, Json facts, uint64_t part_bytes = kPartBytes);
struct LoadedModel {
  Model model;
  Json manifest;
  std::string sha256;  // identity: the manifest's seal
};
/// Reads the master; `placement`: where the model computes, and in which element type.
LoadedModel load_model(const std::filesystem::path& folder, const Placement& placement = {});
/// From the sealed manifest (sizes of the files checked, not their hashes), without reading tensors.
ModelConfig load_model_config(const std::filesystem::path& folder, std::string* sha256 = nullptr);

// -- checkpoints of a running stage --
struct CheckpointPlace {
  std::filesystem::path folder;
  int64_t step = 0;
};
/// All step-* folders, newest first, unverified.
std::vector<CheckpointPlace> list_checkpoints(const std::filesystem::path& ckpt_folder);
/// Newest step whose folder verifies; a damaged one is named in a warning, renamed to .bad-step-* and passed over. None
/// valid but some present: UserError::bad_file (exit 3).
std::optional<CheckpointPlace> find_newest_checkpoint(const std::filesystem::path& ckpt_folder);
/// step-00001200 -> <prefix>step-00001200 (or <prefix>step-00001200.2, ...): kept for a look, never read again.
/// `prefix` starts with a dot.
std::filesystem::path set_aside_checkpoint(const CheckpointPlace& place, const std::string& prefix);
/// The verified manifest of one checkpoint; its `step` must be the folder's. UserError::bad_file, no substitute.
Json check_checkpoint(const CheckpointPlace& place);
/// What to fill, told by the manifest of the checkpoint at hand and its path, for messages: the place to refuse it
/// before a tensor is read, or to bring a model into the checkpoint's shape first.
using TensorsWanted = std::function<std::vector<NamedTensor>(const Json& manifest, const std::string& where)>;
/// Verifies the checkpoint, asks which tensors are wanted and fills them; returns the manifest. UserError::bad_file.
Json read_checkpoint(const CheckpointPlace& place, const TensorsWanted& wanted);
/// The same for tensors that are known beforehand.
Json read_checkpoint(const CheckpointPlace& place, const std::vector<NamedTensor>& into);
/// Writes <ckpt_folder>/step-<8 digits>; facts gets `step`. An existing folder of that step is replaced in one rename.
void write_checkpoint(const std::filesystem::path& ckpt_folder, int64_t step, const TensorSource& source, Json facts,
                      uint64_t part_bytes = kPartBytes);
/// Removes all but the newest `keep_last`; fewer than 2 is refused (UserError::recipe). A failed removal is a warning.
void prune_checkpoints(const std::filesystem::path& ckpt_folder, int keep_last);

}  // namespace coppice
