// safetensors: u64 header size, JSON header, tensor bytes. The reader does eight ordered checks before it believes
// anything.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace coppice {

struct SafetensorsEntry {
  std::string name, dtype;  // F32, BF16, F16, ...
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // within the data section
};

struct SafetensorsTensor {
  std::string name;
  at::Tensor value;  // contiguous; float32, bfloat16 or float16
};

/// Writes tensors sorted by dtype alignment descending, then name, with metadata {"format":"pt"}; sync, no rename (the
/// caller commits the folder).
void write_safetensors(const std::filesystem::path& path, const std::vector<SafetensorsTensor>& tensors);
/// The checked header; UserError::bad_file (exit 3) naming the broken rule.
std::vector<SafetensorsEntry> read_safetensors_header(const std::filesystem::path& path);
/// One tensor's values as float32.
at::Tensor read_safetensors_tensor(const std::filesystem::path& path, const SafetensorsEntry& entry);

}  // namespace coppice
