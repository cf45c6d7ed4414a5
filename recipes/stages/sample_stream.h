// The samples of a training stage in their order: this rank's slice of each step's global batch, in micro-batches, and
// the one number that their gradients are divided by.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "recipes/language/training_options.h"
#include "recipes/stages/context.h"
#include "src/base/json.h"
#include "src/data/loader.h"
#include "src/distributed/comm.h"

namespace coppice {

/// The order and form of a training stage's samples.
LoaderOptions loader_options(const StageContext& context, const Stage& reader, const TrainingOptions& training);

/// Those of a step's samples that rank `rank` of `size` reads: sample i belongs to rank i mod size.
std::vector<Span> spans_of_rank(const std::vector<Span>& drawn, int rank, int size);

class SampleStream {
 public:
  /// `comm`: the ranks that share a step's samples. Each walks all of them, so that what has been drawn is the same
  /// everywhere, and reads its own. `device`: where batches are wanted.
  SampleStream(const StageContext& context, const TrainingOptions& options, Comm& comm, at::Device device = at::kCPU);

  /// The micro-batches of the next step; they stay readable until the one after.
  const std::vector<Batch>& next();
  const std::vector<Batch>& batches() const { return step_.batches; }
  /// Reads what next() will give, and sends it to the device, which is at work meanwhile. What goes wrong next() says.
  void read_ahead();
  /// The first of the micro-batches that have been read ahead; null: none.
  const Batch* ahead() const { return ahead_ && !ahead_->batches.empty() ? ahead_->batches.data() : nullptr; }
  /// Of the step under way: gradients of summed row losses times this are its gradient, however it is split
  /// (gradient_scale of the live tokens of all ranks).
  double scale() const { return scale_; }
  /// Seconds spent waiting for samples.
  double waited_s() const { return waited_s_; }

  /// Samples drawn of each domain, up to the step under way: what a checkpoint holds of the stream.
  Json drawn() const;
  void restore(const Json& drawn, const std::string& path);  // UserError::bad_file

 private:
  struct Step {
    std::vector<Batch> batches;
    std::vector<uint64_t> drawn;  // of each domain behind it
  };
  Step read();

  const TrainingOptions& options_;
  Comm& comm_;
  at::Device device_;
  Loader loader_;
  Step step_;                  // under way
  std::optional<Step> ahead_;  // the one after
  double scale_ = 0, waited_s_ = 0;
};

}  // namespace coppice
