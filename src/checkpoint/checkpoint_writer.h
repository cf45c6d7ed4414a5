// The checkpoints of a stage under way, one after the other: each written before training goes on, or by a thread
// beside it, from a copy of the state. Folder, bytes and commit are the same.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <future>
#include <limits>

#include "src/base/json.h"
#include "src/checkpoint/host_snapshot.h"
#include "src/checkpoint/tensor_folder_writer.h"

namespace coppice {

class CheckpointWriter {
 public:
  struct Options {
    std::filesystem::path folder;                                   // <stage>/ckpt
    int keep_last = 2;                                              // older ones go once a new one stands
    at::Device device{at::kCPU};                                    // where the state lies
    bool background = false;                                        // written by a thread of its own
    double memory_bytes = std::numeric_limits<double>::infinity();  // of the host, that the copy may take
  };
  explicit CheckpointWriter(Options options);
  /// Waits for the write under way. What it failed with is a warning: whoever wants it thrown has called wait().
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// A checkpoint of the state as `source` gives it now; as wait() first. In the background the state may change as
  /// soon as this returns; where the host has no memory for a copy of it, this one and those to come are written before
  /// it returns, and a line says so. IoError.
  void save(int64_t step, const TensorSource& source, Json facts);
  /// Throws what a write that has ended failed with; returns at once otherwise.
  void check();
  /// Waits for the write under way, if any, and throws what it failed with.
  void wait();
  /// The last one known to stand; -1 = none of this writer's.
  int64_t saved_step() const { return saved_step_; }
  /// Seconds that save() and wait() have held their caller up since the last call.
  double take_stall_s();

 private:
  bool makes_copy(const TensorSource& source);
  void write(int64_t step, const TensorSource& source, Json facts) const;

  Options options_;
  HostSnapshot snapshot_;
  int64_t saved_step_ = -1, writing_step_ = -1;
  double stall_s_ = 0;
  std::future<void> write_;  // under way, or ended and not asked for yet
};

}  // namespace coppice
