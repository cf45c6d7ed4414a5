// Folders of named tensors out, committed by rename. A part holds whole tensors of consecutive units, each beside its
// optimizer slots; how they are divided follows from names and shapes alone, so a world of any size writes the same
// files.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/checkpoint/tensor_folder.h"

namespace coppice {

inline constexpr int64_t kStageUnit = -1;                  // tensors of the stage's own
inline constexpr uint64_t kPartBytes = uint64_t{1} << 30;  // a part is full with so many

/// Tensors that are still to come.
struct TensorSource {
  struct Entry {
    std::string name;
    std::vector<int64_t> shape;
    int64_t unit = kStageUnit;  // or of the model: Parameter::unit
  };
  std::vector<Entry> entries;  // as a single part holds them
  /// The value of an entry, contiguous float32 on any device. Asked part after part, in the order of entries, and let
  /// go as soon as it is written; all of it once more when the first try fails.
  std::function<at::Tensor(size_t entry)> value;
};

/// Of its value.
uint64_t bytes_of(const TensorSource::Entry& entry);

/// Entries of each part: units in ascending order, a new part once one has `part_bytes`; what is the stage's own stands
/// alone unless there is a single part.
std::vector<std::vector<size_t>> divide_into_parts(const std::vector<TensorSource::Entry>& entries,
                                                   uint64_t part_bytes = kPartBytes);

/// Writes `folder` whole: parts, sealed manifest (`facts` plus format, version, files), fsync, rename. IoError on
/// failure, nothing half-written under the final name.
void write_tensor_folder(const std::filesystem::path& folder, const std::string& format, const TensorSource& source,
                         Json facts, uint64_t part_bytes = kPartBytes);
/// Tensors that are there, as the stage's own.
TensorSource source_of(std::vector<NamedTensor> tensors);
/// One after another.
TensorSource join(std::vector<TensorSource> sources);
/// All of them at once, to be filled.
std::vector<NamedTensor> tensors_of(const TensorSource& source);
void write_tensor_folder(const std::filesystem::path& folder, const std::string& format,
                         const std::vector<NamedTensor>& tensors, Json facts);

}  // namespace coppice
