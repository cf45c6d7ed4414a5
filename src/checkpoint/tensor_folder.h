// A folder of named tensors: HDF5 files, the parts, and a sealed manifest that lists them. A part holds whole tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/hdf5.h"
#include "src/base/json.h"

namespace coppice {

/// A named float32 tensor of a part file: "/model/norm.weight", "/optim/v/norm.weight", "/mask/scores".
struct NamedTensor {
  std::string name;
  at::Tensor value;  // contiguous float32
};

inline constexpr int kTensorFolderVersion = 1;
inline constexpr const char* kTensorManifest = "manifest.json";
std::string tensor_part_name(size_t part);               // part-00000.h5
uint64_t file_bytes(const std::filesystem::path& path);  // IoError
/// InternalError unless the value is contiguous float32.
void check_tensor(const std::string& name, const at::Tensor& value);

/// A folder opened for reading: seal, exact file list, sizes and hashes are verified before any parser runs.
/// UserError::bad_file naming the file, for a part of another folder as well.
class TensorFolder {
 public:
  TensorFolder(std::filesystem::path folder, const std::string& format);
  const Json& manifest() const { return manifest_; }
  std::vector<std::string> names() const;
  /// UserError::bad_file for a name that is not there.
  std::vector<int64_t> shape(const std::string& name) const;
  /// Rows [first_row, first_row + into.size(0)) of a tensor along its first axis, from whichever part holds it; `into`
  /// is contiguous float32 on any device with the tensor's other axes. UserError::bad_file with expected and found.
  void read(const std::string& name, int64_t first_row, const at::Tensor& into) const;
  /// The file that holds a tensor, for messages.
  std::filesystem::path part_of(const std::string& name) const;

 private:
  const Hdf5Reader& reader_of(const std::string& name) const;

  std::filesystem::path folder_;
  Json manifest_;
  std::vector<std::unique_ptr<Hdf5Reader>> parts_;
  std::map<std::string, size_t> part_of_;
};

/// Fills each tensor (all names must exist with equal shape, none left over); returns the verified manifest.
/// UserError::bad_file naming tensor, expected and found.
Json read_tensor_folder(const std::filesystem::path& folder, const std::string& format,
                        const std::vector<NamedTensor>& into);
/// The verified manifest alone (seal, files, hashes).
Json check_tensor_folder(const std::filesystem::path& folder, const std::string& format);
/// The manifest with its seal and the files' sizes verified, not their hashes: quick for large models.
Json read_tensor_manifest(const std::filesystem::path& folder, const std::string& format);

}  // namespace coppice
