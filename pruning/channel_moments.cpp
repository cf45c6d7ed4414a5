#include "pruning/channel_moments.h"

#include <ATen/ATen.h>

#include "src/base/errors.h"

namespace coppice {

void ChannelMoments::add(const at::Tensor& hidden_NF, const at::Tensor& live_N) {
  const at::Tensor x_nF = hidden_NF.detach().index_select(0, live_N.reshape({-1}).nonzero().squeeze(1)).to(at::kDouble);
  const int64_t added = x_nF.size(0);
  if (added == 0) return;
  const at::Tensor mean_F = x_nF.mean(0), spread_F = (x_nF - mean_F).square().sum(0);
  if (count_ == 0) {
    mean_F_ = mean_F;
    spread_F_ = spread_F;
  } else {
    const double before = static_cast<double>(count_), now = static_cast<double>(added), all = before + now;
    const at::Tensor step_F = mean_F - mean_F_;
    mean_F_ = mean_F_ + step_F * (now / all);
    spread_F_ = spread_F_ + spread_F + step_F.square() * (before * now / all);
  }
  count_ += added;
}

at::Tensor ChannelMoments::variance() const { return spread_F_ / static_cast<double>(count_); }

at::Tensor ChannelMoments::mean_square() const { return variance() + mean_F_.square(); }

std::vector<ChannelMoments> hidden_moments(const ScoreInput& input) {
  std::vector<ChannelMoments> moments(input.model->config.intermediate_size.size());
  walk_hidden(input, [&](int64_t layer, const at::Tensor& hidden_NF, const at::Tensor& live_BT) {
    moments[static_cast<size_t>(layer)].add(hidden_NF, live_BT);
  });
  COPPICE_CHECK(moments.front().count() > 0, "the calibration batches hold no live token");
  return moments;
}

}  // namespace coppice
