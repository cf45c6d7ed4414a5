// The header of a safetensors file, without torch: eight ordered checks before anything is believed.
#pragma once

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

/// The checked header; UserError::bad_file (exit 3) naming the broken rule.
std::vector<SafetensorsEntry> read_safetensors_header(const std::filesystem::path& path);

struct SafetensorsSizes {
  uint64_t file_bytes = 0, header_bytes = 0;  // tensors begin at 8 + header_bytes
};
/// The first check alone: the size word against the bytes that exist.
SafetensorsSizes safetensors_sizes(const std::filesystem::path& path);

}  // namespace coppice
