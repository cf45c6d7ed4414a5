// The tensors of a checkpoint as they were at its step, copied into host memory: they are written from there while
// training changes those that it goes on with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "src/checkpoint/tensor_folder_writer.h"

namespace coppice {

/// Of one piece of a snapshot's memory. A power of two: pinned memory comes in powers of two, however little is asked.
inline constexpr uint64_t kSlabBytes = uint64_t{1} << 30;

/// Memory of a snapshot, in slabs that stay from one to the next; a tensor may lie across several.
class HostSnapshot {
 public:
  /// `device`: where the values lie. What comes from one that is no CPU comes into pinned memory.
  explicit HostSnapshot(at::Device device, uint64_t slab_bytes = kSlabBytes);
  ~HostSnapshot();
  HostSnapshot(const HostSnapshot&) = delete;
  HostSnapshot& operator=(const HostSnapshot&) = delete;
  /// Holds memory for so many bytes from now on; false where the system does not give it, and then none is held.
  bool make_room(uint64_t bytes);
  /// Copies of all values as they are now, complete when this returns; good until the next are taken. There must be
  /// room for them.
  TensorSource take(const TensorSource& source);

 private:
  void release();  // all of it, to the system

  at::Device device_;
  int64_t slab_size_;              // elements
  std::vector<at::Tensor> slabs_;  // float32 [slab_size_], the last one as many as it takes
};

}  // namespace coppice
