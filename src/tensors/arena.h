// All parameters of a model in flat fp32 buffers: master, gradient and one buffer per optimizer slot. A parameter is a
// view, so that one optimizer kernel, one clip, one bucket and one write serve them all. On the CPU the working copy is
// the master itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace coppice {

/// One tensor in the arena.
struct ArenaEntry {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // elements from the start of the buffer
  int64_t size = 0;    // elements
};

/// One optimizer block: consecutive entries clipped together (q, k and v of a layer are one block).
struct ArenaBlock {
  std::string name;
  int64_t offset = 0, size = 0;  // elements; without padding
  double multiplier = 1.0;       // muParam-simple
};

/// Where everything lies, without memory: entries of one block are adjacent, blocks start at multiples of
/// kArenaAlignment elements. The exception is a block that is read as one matrix with the block before it (up_proj
/// after gate_proj): it follows without padding, wherever that is.
struct ArenaLayout {
  std::vector<ArenaEntry> entries;
  std::vector<ArenaBlock> blocks;
  int64_t size = 0;  // elements of a buffer, padding included
};
inline constexpr int64_t kArenaAlignment = 16;

class ParameterArena {
 public:
  /// Zeros; DeviceError::out_of_memory with bytes asked, DeviceError::unavailable where this build has no such device.
  explicit ParameterArena(ArenaLayout layout, at::Device device = at::kCPU);

  const ArenaLayout& layout() const { return layout_; }
  const at::Tensor& master() const { return master_; }  // [size] fp32
  const at::Tensor& gradient() const {
    return gradient_;
  }  // [size] fp32, allocated at the first call of enable_gradient()
  /// Allocates the gradient and makes parameters require it; without it the model only runs forward.
  void enable_gradient();
  bool has_gradient() const { return gradient_.defined(); }
  void zero_gradient();

  /// View of entry i (or of the named one) in its shape; requires_grad once enable_gradient() was called.
  at::Tensor parameter(size_t i) const;
  at::Tensor parameter(const std::string& name) const;
  at::Tensor gradient_of(const std::string& name) const;
  /// Rows of the adjacent 2-D entries first..last as one matrix [sum of rows, columns] (fused QKV, fused gate and up);
  /// InternalError unless adjacent.
  at::Tensor fused_parameter(const std::string& first, const std::string& last) const;
  at::Tensor fused_gradient(const std::string& first, const std::string& last) const;
  const ArenaEntry& entry(const std::string& name) const;  // InternalError when absent

 private:
  at::Tensor view(const at::Tensor& buffer, int64_t offset, c10::IntArrayRef shape) const;
  at::Tensor leaf(int64_t offset, c10::IntArrayRef shape) const;
  std::vector<int64_t> fused_shape(const std::string& first, const std::string& last) const;

  ArenaLayout layout_;
  at::Device device_;
  std::unordered_map<std::string, size_t> index_;  // name -> entry
  at::Tensor master_, gradient_;
};

}  // namespace coppice
