// safetensors: u64 header size, JSON header, tensor bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "src/checkpoint/safetensors_header.h"

namespace coppice {

struct SafetensorsTensor {
  std::string name;
  at::Tensor value;  // contiguous; float32, bfloat16 or float16
};

/// Writes tensors sorted by dtype alignment descending, then name, with metadata {"format":"pt"}; sync, no rename (the
/// caller commits the folder).
void write_safetensors(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors);
/// Receives values `first` and following of a tensor, in row-major order; several threads call at once.
using TakeValues = std::function<void(int64_t first, std::span<const float> values)>;
/// One tensor's values as float32, each once, in pieces that fit a core's cache: nothing of the tensor's size is held.
/// UserError::bad_file for a type without a conversion or a file shorter than its header says.
void read_safetensors_values(const std::filesystem::path& path, const SafetensorsEntry& entry, const TakeValues& take);
/// The same as a tensor.
at::Tensor read_safetensors_tensor(const std::filesystem::path& path, const SafetensorsEntry& entry);

}  // namespace coppice
