// All parameters of a model in flat buffers: an fp32 master, the working copy that the model computes with, an fp32
// gradient; the optimizer adds slots of the same layout. A parameter is a view, so that one optimizer kernel, one clip,
// one bucket and one write serve them all. The working copy is the master itself where both have one element type. A
// split master is the working copy and a remainder of 16 bits (src/tensors/kernels/split_master.h); vectors, which are
// computed with in fp32, have a copy in fp32 beside them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "src/tensors/device.h"

namespace coppice {

/// One tensor in the arena.
struct ArenaEntry {
  std::string name;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // elements from the start of the buffer
  int64_t size = 0;    // elements

  bool is_vector() const { return shape.size() == 1; }  // norm weights and biases
};

/// One optimizer block: consecutive entries clipped together (q, k and v of a layer are one block).
struct ArenaBlock {
  std::string name;
  int64_t offset = 0, size = 0;  // elements; without padding
  double multiplier = 1.0;       // muParam-simple
};

/// What is communicated and written in one piece: the embedding, each layer, the final norm with an untied head.
struct ArenaUnit {
  std::string name;
  int64_t offset = 0, size = 0;  // elements; padding behind the last entry included
};

/// Where everything lies, without memory. Units follow each other without a gap and hold whole blocks. Entries of one
/// block are adjacent, blocks start at multiples of kArenaAlignment elements. The exception is a block that is read as
/// one matrix with the block before it (up_proj after gate_proj): it follows without padding, wherever that is.
struct ArenaLayout {
  std::vector<ArenaEntry> entries;
  std::vector<ArenaBlock> blocks;
  std::vector<ArenaUnit> units;
  int64_t size = 0;     // elements of a buffer, padding included
  int64_t cell = 2048;  // elements, counted from a unit's begin: what several ranks own of a unit is whole cells
};
inline constexpr int64_t kArenaAlignment = 16;

/// Elements of a unit that belong together, from its begin.
struct UnitRange {
  int64_t offset = 0, size = 0;
};
/// What `rank` of `ranks` owns of a unit: the rank-th of equal runs, whole cells. InternalError unless the layout was
/// made for so many shards.
UnitRange owned_range(const ArenaLayout& layout, size_t unit, int rank, int ranks);

class ParameterArena;

/// Whole tensors of the master in the order of the entries, fp32, to be read while this lives and the arena stays:
/// views, or, of a split master, made of both halves at each asking.
class MasterReader {
 public:
  explicit MasterReader(const ParameterArena& arena) : arena_(&arena) {}
  at::Tensor operator[](const std::string& name) const;  // InternalError when absent

 private:
  const ParameterArena* arena_;
};

/// The same to be written: the working copy follows when this goes out of scope. What was made of two halves goes back
/// into them then, or once another tensor is asked for and nobody holds this one: one at a time takes no memory.
class MasterEditor {
 public:
  explicit MasterEditor(ParameterArena& arena) : arena_(&arena) {}
  ~MasterEditor();
  MasterEditor(const MasterEditor&) = delete;
  MasterEditor& operator=(const MasterEditor&) = delete;
  at::Tensor operator[](const std::string& name) const;

 private:
  ParameterArena* arena_;
  mutable std::vector<std::pair<std::string, at::Tensor>> joined_;  // of a split master, to go back
};

class ParameterArena {
 public:
  /// Zeros; DeviceError::out_of_memory with bytes asked, DeviceError::unavailable where this build has no such device.
  explicit ParameterArena(ArenaLayout layout, const Placement& placement = {});

  const ArenaLayout& layout() const { return layout_; }
  /// Where it lies, and in which element type the model computes.
  const Placement& placement() const { return placement_; }
  /// Allocates the gradient and makes parameters require it; without it the model only runs forward.
  void enable_gradient();
  bool has_gradient() const { return gradient_.defined(); }
  void zero_gradient();

  // -- what the model computes with --
  /// View of entry i (or of the named one) in its shape: a matrix of the working copy, a vector of the master;
  /// requires_grad once enable_gradient() was called.
  at::Tensor parameter(size_t i) const;
  at::Tensor parameter(const std::string& name) const;
  at::Tensor gradient_of(const std::string& name) const;  // fp32
  /// Rows of the adjacent entries first..last as one matrix [sum of rows, columns] (fused QKV, fused gate and up), or
  /// one vector (the biases of QKV); InternalError unless adjacent.
  at::Tensor fused_parameter(const std::string& first, const std::string& last) const;
  at::Tensor fused_gradient(const std::string& first, const std::string& last) const;
  const ArenaEntry& entry(const std::string& name) const;  // InternalError when absent

  // -- whole tensors of the master: import, export, pruning, scores, fresh weights, checkpoints --
  MasterReader read_master() const { return MasterReader(*this); }
  MasterEditor edit_master() { return MasterEditor(*this); }

  // -- unit by unit: the optimizer --
  at::Tensor unit_master(size_t unit) const;     // [unit.size] fp32; undefined where the master is split
  at::Tensor unit_gradient(size_t unit) const;   // [unit.size] fp32
  at::Tensor unit_working(size_t unit) const;    // [unit.size]; undefined where it is the master
  at::Tensor unit_remainder(size_t unit) const;  // [unit.size] int16; undefined unless the master is split
  /// The working copy of a unit becomes its rounded master; nothing to do where it is the master, or a half of it.
  void refresh_working(size_t unit);
  /// The vectors become what both halves of a split master say; nothing to do where they are the master's.
  void refresh_vectors();
  /// Zeros laid out like the arena, [layout().size] fp32 on its device; `what` names them when memory is short.
  at::Tensor make_slot(const std::string& what) const;
  /// The named entry's part of a buffer laid out like the arena, in its shape.
  at::Tensor entry_of(const at::Tensor& buffer, const std::string& name) const;

 private:
  friend class MasterReader;
  friend class MasterEditor;

  at::Tensor master_of(const std::string& name) const;
  void split_master_of(const std::string& name, const at::Tensor& value);
  void make_split_master();
  at::Tensor leaf(const ArenaEntry& entry, c10::IntArrayRef shape) const;  // of that shape, from the entry's begin
  std::vector<int64_t> fused_shape(const std::string& first, const std::string& last) const;

  ArenaLayout layout_;
  Placement placement_;
  std::unordered_map<std::string, size_t> index_;  // name -> entry
  at::Tensor master_, working_, gradient_;
  // of a split master, which has no buffer
  at::Tensor remainder_;
  at::Tensor vectors_, vector_places_;   // fp32, and where in the halves each of its elements is
  std::vector<int64_t> vector_offsets_;  // by entry: in vectors_
};

}  // namespace coppice
