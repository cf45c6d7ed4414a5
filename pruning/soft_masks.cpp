#include "pruning/soft_masks.h"

#include <ATen/ATen.h>

#include <span>

#include "src/base/random.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr double kStdEpsilon = 1e-6;

}  // namespace

at::Tensor initial_scores(int64_t num_layers, int64_t num_channels, double std, uint64_t seed) {
  at::Tensor raw_LF = at::empty({num_layers, num_channels}, at::kFloat);
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    std::span<float> row(raw_LF.mutable_data_ptr<float>() + layer * num_channels, static_cast<size_t>(num_channels));
    fill_normal(row, std, seed, Purpose::mask_scores, static_cast<uint64_t>(layer));
  }
  return raw_LF;
}

at::Tensor standardise_scores(const at::Tensor& raw_LF) {
  check_shape(raw_LF, {-1, -1}, "raw_LF");
  const at::Tensor std_L1 = raw_LF.std(1, /*correction=*/c10::Scalar(0), /*keepdim=*/true);
  return (raw_LF - raw_LF.mean(1, /*keepdim=*/true)) / (std_L1 + kStdEpsilon);
}

}  // namespace coppice
