// masks.h5: what learn_masks decided, as a small file of its own: /scores and /soft, f32 [L, F], /kept, i64 [L]
// (channels that each layer keeps), with the identity of the source, the method, the last epsilon and a hash of all of
// it. Masks over heads or layers (pruning/cut_axis.h): [rows, units], version 4, which names the axis.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "pruning/cut_axis.h"

namespace coppice {

struct MaskFile {
  at::Tensor scores_LF;  // raw scores r
  at::Tensor soft_LF;    // lambda in its last form; sums to num_kept per row (or less where multiplied by the top set)
  std::string source_sha256;  // identity of the model that was trained with it
  int64_t num_kept = 0;       // of a layer, or the layers' mean
  double epsilon = 0;
  std::vector<int64_t> kept = {};  // one a layer; empty = num_kept in each
  std::string method = "soft_top_k";
  bool global = false;  // kept differs between layers on purpose
  CutAxis axis = CutAxis::ffn;

  std::vector<int64_t> widths() const;
};

/// Commits by rename. IoError.
void save_masks(const std::filesystem::path& path, const MaskFile& masks);
/// UserError::bad_file on a damaged file or unexpected shapes.
MaskFile load_masks(const std::filesystem::path& path);

}  // namespace coppice
