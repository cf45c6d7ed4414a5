// Checkpoints: a folder committed by rename, its manifest sealed, tensors in HDF5 written by the skeleton method.
//   <stage>/ckpt/step-00001200/{part-00000.h5, manifest.json}     <stage>/model/{part-00000.h5, manifest.json}
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/model/decoder.h"

namespace coppice {

/// A named float32 tensor of a part file: "/model/norm.weight", "/optim/v/norm.weight", "/mask/scores".
struct NamedTensor {
  std::string name;
  at::Tensor value;  // contiguous float32, on the CPU
};

/// The arena's parameters (or a slot laid out like it) as named tensors: prefix + parameter name.
std::vector<NamedTensor> arena_tensors(const ModelConfig& config, const ParameterArena& arena, const at::Tensor& buffer,
                                       const std::string& prefix);

/// Writes `folder` whole: part file, sealed manifest (`facts` plus format, version, files), fsync, rename. IoError on
/// failure, nothing half-written under the final name.
void write_tensor_folder(const std::filesystem::path& folder, const std::string& format,
                         const std::vector<NamedTensor>& tensors, Json facts);
/// Verifies seal, exact file list, sizes and hashes before any parser runs; then fills each tensor (all names must
/// exist with equal shape, none left over). UserError::bad_file naming tensor, expected and found.
Json read_tensor_folder(const std::filesystem::path& folder, const std::string& format,
                        const std::vector<NamedTensor>& into);
/// The verified manifest alone (seal, files, hashes).
Json check_tensor_folder(const std::filesystem::path& folder, const std::string& format);
/// The manifest with its seal and the files' sizes verified, not their hashes: quick for large models.
Json read_tensor_manifest(const std::filesystem::path& folder, const std::string& format);

// -- models --
/// format coppice.model; facts must not hold "model" (the config is added).
void save_model(const std::filesystem::path& folder, const Model& model, Json facts);
struct LoadedModel {
  Model model;
  Json manifest;
  std::string sha256;  // identity: the manifest's seal
};
LoadedModel load_model(const std::filesystem::path& folder);
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
/// Verifies the checkpoint and fills the tensors; returns the manifest.
Json read_checkpoint(const CheckpointPlace& place, const std::vector<NamedTensor>& into);
/// Writes <ckpt_folder>/step-<8 digits>; facts gets `step`. An existing folder of that step is replaced in one rename.
void write_checkpoint(const std::filesystem::path& ckpt_folder, int64_t step, const std::vector<NamedTensor>& tensors,
                      Json facts);
/// Removes all but the newest `keep_last`; fewer than 2 is refused (UserError::recipe). A failed removal is a warning.
void prune_checkpoints(const std::filesystem::path& ckpt_folder, int keep_last);

}  // namespace coppice
