// A folder of named tensors, committed by rename: tensors in HDF5 written by the skeleton method, a sealed manifest.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "src/base/json.h"

namespace coppice {

/// A named float32 tensor of a part file: "/model/norm.weight", "/optim/v/norm.weight", "/mask/scores".
struct NamedTensor {
  std::string name;
  at::Tensor value;  // contiguous float32, on the CPU
};

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

}  // namespace coppice
