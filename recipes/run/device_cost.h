// Memory and time of a model's work on a device, by formula: what is held, a step's products at the share of the
// device's rate that such products reach, attention at published rates, elementwise kernels by their table of costs.
//   t = sum over products of max(FLOPs / rate, bytes / bandwidth) + attention + kernels, at least the host's launches
// Nothing here has been measured on a device.
#pragma once

#include <cstdint>

#include "recipes/folder/devices.h"
#include "recipes/stages/stage_cost.h"
#include "src/tensors/attention.h"

namespace coppice {

/// How one model is trained on a device.
struct DeviceSettings {
  int64_t micro_rows = 1;  // sequences of a micro-batch
  Recompute recompute = Recompute::none;
  bool split_master = false;  // the master is the working copy and a 16-bit remainder of each parameter
};

/// Bytes on the device.
struct DeviceMemory {
  double state = 0;        // parameters, gradient, optimizer slots; of models that are only read, parameters
  double activations = 0;  // kept for the backward pass
  double buffers = 0;      // of the layer under way
  double logits = 0;       // of the chunk under way
  double workspace = 0;    // of the driver, the libraries and attention's backward pass
  double total() const { return state + activations + buffers + logits + workspace; }
};

/// Bytes a token that is kept for the backward pass: by layer the stream before both norms, the norms' outputs, the
/// packed projection, q and k behind norm and RoPE, what the heads give, gate, up and hidden values, and statistics in
/// fp32; less what is computed again.
double kept_bytes_per_token(const ModelConfig& config, Recompute recompute);
DeviceMemory training_memory(const ModelWork& work, const DeviceSettings& settings);
DeviceMemory reading_memory(const ModelWork& work);
/// Bytes of the host: the copy of a trained model's state that its checkpoints are written from.
double snapshot_bytes(const ModelWork& work);

/// The sizes of a model's kernels on so many rows; the FFN of its widest layer.
KernelShape kernel_shape(const ModelWork& work, int64_t rows);
/// Seconds of y = x w^T with w [out, in], forward and both gradients.
double linear_seconds(double rows, double in, double out, const DeviceRow& device);
/// Seconds of the output head's products, a chunk of logits after the other; both ways or forward alone.
double head_seconds(const ModelConfig& config, double rows, const DeviceRow& device, double logit_bytes,
                    bool both_ways);
/// Seconds of one layer's attention, both ways.
double attention_seconds(const ModelWork& work, double tokens, const DeviceRow& device, AttentionMode attention);

/// Seconds of an optimizer step.
struct StepTime {
  double products = 0, attention = 0, elementwise = 0;
  double again = 0;     // what is made again in the backward pass
  double launches = 0;  // of the host, at least
  double optimizer = 0;
  double seconds() const;
};
StepTime step_time(const ModelWork& work, const DeviceSettings& settings, const DeviceRow& device,
                   AttentionMode attention);
/// Seconds of a token that is only read.
double reading_seconds(const ModelWork& work, const DeviceRow& device, AttentionMode attention);

}  // namespace coppice
