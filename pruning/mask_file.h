// masks.h5: what learn_masks decided, as a small file of its own: /scores and /soft, f32 [L, F], with the identity of the source and the last epsilon.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

namespace coppice {

struct MaskFile {
  at::Tensor scores_LF;       // raw scores r
  at::Tensor soft_LF;         // lambda in its last form; sums to num_kept per row (or less where multiplied by the top set)
  std::string source_sha256;  // identity of the model that was trained with it
  int64_t num_kept = 0;
  double epsilon = 0;
};

/// Commits by rename. IoError.
void save_masks(const std::filesystem::path& path, const MaskFile& masks);
/// UserError::bad_file on a damaged file or unexpected shapes.
MaskFile load_masks(const std::filesystem::path& path);

}  // namespace coppice
