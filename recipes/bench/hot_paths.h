// What a training step spends its time in, each path by itself and ready to be called: `coppice bench` measures them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <span>
#include <string>

#include "recipes/run/device_cost.h"
#include "src/tensors/attention.h"
#include "src/tensors/device.h"

namespace coppice {

/// One micro-batch of one model, where it is computed.
struct BenchShape {
  ModelWork work;  // rows are its sequences
  Placement on;
  Recompute recompute = Recompute::none;  // of whole steps
  AttentionMode attention = AttentionMode::repeatable;
  int64_t tokens() const { return work.rows * work.seq_len; }
};
/// What is asked of it; empty and 0: as it is without.
struct AskedShape {
  std::string model;  // a preset
  int64_t seq_len = 0, rows = 0, ffn_size = 0;
  Recompute recompute = Recompute::none;
  bool split_master = false;
  AttentionMode attention = AttentionMode::repeatable;
};
/// On a CPU a small model (3 layers of 256) with 4 x 256 tokens, on a device the published student (afm-3b) with 2 x
/// 4096. UserError for a preset that there is not.
BenchShape bench_shape(const Placement& on, const AskedShape& asked = {});

/// Of a path that is a whole step.
struct StepFacts {
  double full_flops = 0;     // PreparedPath::flops with the whole square of attention's scores
  double planned_bytes = 0;  // of a device's memory, as `coppice plan --device` counts it
};

/// Its tensors are made. What a call must move or compute: one of bytes and flops is 0.
struct PreparedPath {
  std::function<at::Tensor()> run;  // what the call leaves; finite
  double bytes = 0, flops = 0;
  double tokens = 0;             // that a call gets through; 0 where that says nothing
  std::function<void()> before;  // not measured; empty: nothing, and calls may follow each other without a look
  std::function<double(const DeviceRow&)> predicted_s;  // of a call, in bf16 on such a device
  std::optional<StepFacts> step;
};

struct HotPath {
  const char* name;
  const char* about;
  PreparedPath (*prepare)(const BenchShape& shape);
};
/// In the order of a step.
std::span<const HotPath> hot_paths();

}  // namespace coppice
