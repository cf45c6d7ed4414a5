#include "src/tensors/arena.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <algorithm>
#include <ranges>
#include <utility>

#include "src/base/errors.h"
#include "src/tensors/device.h"
#include "src/tensors/master_halves.h"

namespace coppice {

namespace {

/// `size` zeros, with the arena's own words when memory is short.
at::Tensor allocate(int64_t size, at::Device device, at::ScalarType type, const std::string& what) {
  try {
    return at::zeros({size}, at::TensorOptions().dtype(type).device(device));
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error)) throw;
    throw DeviceError::out_of_memory(
        fmt::format("{} of the parameters: {} bytes asked; lower the model's size or free memory", what,
                    static_cast<int64_t>(c10::elementSize(type)) * size));
  }
}

at::Tensor view(const at::Tensor& buffer, int64_t offset, c10::IntArrayRef shape) {
  const at::NoGradGuard no_grad;
  return buffer.narrow(0, offset, c10::multiply_integers(shape)).view(shape);
}

void check_units(const ArenaLayout& layout) {
  int64_t end = 0;
  for (const ArenaUnit& unit : layout.units) {
    COPPICE_CHECK(unit.offset == end,
                  fmt::format("unit {}: offset {}, the one before it ends at {}", unit.name, unit.offset, end));
    end += unit.size;
  }
  COPPICE_CHECK(end == layout.size, fmt::format("units hold {} elements of {}", end, layout.size));
  size_t unit = 0;
  for (const ArenaBlock& block : layout.blocks) {
    while (block.offset >= layout.units[unit].offset + layout.units[unit].size) ++unit;
    COPPICE_CHECK(block.offset + block.size <= layout.units[unit].offset + layout.units[unit].size,
                  fmt::format("block {} reaches beyond unit {}", block.name, layout.units[unit].name));
  }
}

void check_layout(const ArenaLayout& layout) {
  int64_t end = 0;
  for (const ArenaEntry& entry : layout.entries) {
    const int64_t size = c10::multiply_integers(entry.shape);
    COPPICE_CHECK(entry.size == size, fmt::format("{}: size {}, but its shape holds {}", entry.name, entry.size, size));
    COPPICE_CHECK(entry.offset >= end, fmt::format("{}: offset {} overlaps the entry before it, which ends at {}",
                                                   entry.name, entry.offset, end));
    end = entry.offset + entry.size;
    COPPICE_CHECK(end <= layout.size, fmt::format("{}: ends at {}, buffer holds {}", entry.name, end, layout.size));
  }
  check_units(layout);
}

}  // namespace

UnitRange owned_range(const ArenaLayout& layout, size_t unit, int rank, int ranks) {
  const int64_t size = layout.units.at(unit).size;
  COPPICE_CHECK(rank >= 0 && rank < ranks, fmt::format("rank {} of {}", rank, ranks));
  COPPICE_CHECK(ranks == 1 || size % (ranks * layout.cell) == 0,
                fmt::format("unit {} of {} elements is not padded for {} ranks", layout.units[unit].name, size, ranks));
  return {.offset = rank * (size / ranks), .size = size / ranks};
}

at::Tensor MasterReader::operator[](const std::string& name) const { return arena_->master_of(name); }

at::Tensor MasterEditor::operator[](const std::string& name) const {
  if (!arena_->placement_.split_master) return arena_->master_of(name);
  std::erase_if(joined_, [&](const auto& joined) {
    const auto& [its_name, value] = joined;
    if (its_name == name || value.use_count() > 1 || value.storage().use_count() > 1) return false;
    arena_->split_master_of(its_name, value);
    return true;
  });
  const auto found = std::ranges::find(joined_, name, &std::pair<std::string, at::Tensor>::first);
  return found != joined_.end() ? found->second : joined_.emplace_back(name, arena_->master_of(name)).second;
}

MasterEditor::~MasterEditor() {
  for (const auto& [name, value] : joined_) arena_->split_master_of(name, value);
  for (size_t unit = 0; unit < arena_->layout_.units.size(); ++unit) arena_->refresh_working(unit);
  arena_->refresh_vectors();
}

ParameterArena::ParameterArena(ArenaLayout layout, const Placement& placement)
    : layout_(std::move(layout)), placement_(placement) {
  check_available(placement_.device, "the model");
  COPPICE_CHECK(placement_.compute == at::kFloat || placement_.compute == at::kBFloat16,
                fmt::format("a model computes in float32 or bfloat16, got {}", dtype_name(placement_.compute)));
  check_layout(layout_);
  for (size_t i = 0; i < layout_.entries.size(); ++i) index_.emplace(layout_.entries[i].name, i);
  COPPICE_CHECK(index_.size() == layout_.entries.size(), "two entries of one name");
  COPPICE_CHECK(!placement_.split_master || placement_.compute == at::kBFloat16,
                "a split master has a working copy in bfloat16");
  if (!placement_.split_master) master_ = make_slot("master copy");
  working_ = placement_.compute == at::kFloat
                 ? master_
                 : allocate(layout_.size, placement_.device, placement_.compute, "working copy");
  if (placement_.split_master) make_split_master();
}

/// Runs of vectors lie in vectors_ as they do in the halves, so that those that are adjacent can be fused.
void ParameterArena::make_split_master() {
  remainder_ = allocate(layout_.size, placement_.device, at::kShort, "remainder of the master copy");
  std::vector<int64_t> places;
  int64_t shift = 0;  // from vectors_ to the halves
  bool in_run = false;
  for (const ArenaEntry& entry : layout_.entries) {
    vector_offsets_.push_back(0);
    if (!std::exchange(in_run, entry.is_vector()) && entry.is_vector()) {
      const auto begin = static_cast<int64_t>(places.size() + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
      places.resize(static_cast<size_t>(begin), entry.offset);  // what is between two runs nobody reads
      shift = entry.offset - begin;
    }
    if (!entry.is_vector()) continue;
    vector_offsets_.back() = entry.offset - shift;
    while (std::ssize(places) < entry.offset - shift + entry.size) places.push_back(std::ssize(places) + shift);
  }
  const int64_t size = std::ssize(places);
  vectors_ = allocate(size, placement_.device, at::kFloat, "vectors");
  vector_places_ =
      at::from_blob(places.data(), {size}, at::kLong).to(placement_.device, /*non_blocking=*/false, /*copy=*/true);
}

void ParameterArena::enable_gradient() {
  if (!gradient_.defined()) gradient_ = make_slot("gradient");
}

void ParameterArena::zero_gradient() {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  const at::NoGradGuard no_grad;
  gradient_.zero_();
}

at::Tensor ParameterArena::make_slot(const std::string& what) const {
  return allocate(layout_.size, placement_.device, at::kFloat, what);
}

const ArenaEntry& ParameterArena::entry(const std::string& name) const {
  const auto found = index_.find(name);
  COPPICE_CHECK(found != index_.end(), fmt::format("no parameter '{}'", name));
  return layout_.entries[found->second];
}

at::Tensor ParameterArena::entry_of(const at::Tensor& buffer, const std::string& name) const {
  COPPICE_CHECK(buffer.defined() && buffer.dim() == 1 && buffer.numel() == layout_.size,
                "a buffer laid out like the arena expected");
  return view(buffer, entry(name).offset, entry(name).shape);
}

at::Tensor ParameterArena::master_of(const std::string& name) const {
  if (!placement_.split_master) return entry_of(master_, name);
  const ArenaEntry& row = entry(name);
  at::Tensor joined = at::empty(row.shape, at::TensorOptions().dtype(at::kFloat).device(placement_.device));
  join_master_into(view(working_, row.offset, {row.size}), view(remainder_, row.offset, {row.size}), joined);
  return joined;
}

void ParameterArena::split_master_of(const std::string& name, const at::Tensor& value) {
  const ArenaEntry& row = entry(name);
  split_master_into(value, view(working_, row.offset, {row.size}), view(remainder_, row.offset, {row.size}));
}

at::Tensor ParameterArena::leaf(const ArenaEntry& entry, c10::IntArrayRef shape) const {
  const bool apart = placement_.split_master && entry.is_vector();
  const at::Tensor& buffer = apart ? vectors_ : entry.is_vector() ? master_ : working_;
  const int64_t offset = apart ? vector_offsets_[index_.at(entry.name)] : entry.offset;
  at::Tensor parameter =
      view(buffer, offset, shape).detach();  // a leaf of its own: gradients go to the arena, never to .grad
  if (has_gradient()) parameter.set_requires_grad(true);
  return parameter;
}

at::Tensor ParameterArena::parameter(size_t i) const {
  COPPICE_CHECK(i < layout_.entries.size(), fmt::format("parameter {} of {}", i, layout_.entries.size()));
  const ArenaEntry& entry = layout_.entries[i];
  return leaf(entry, entry.shape);
}

at::Tensor ParameterArena::parameter(const std::string& name) const { return leaf(entry(name), entry(name).shape); }

at::Tensor ParameterArena::gradient_of(const std::string& name) const {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  return entry_of(gradient_, name);
}

at::Tensor ParameterArena::unit_master(size_t unit) const {
  if (!master_.defined()) return {};
  return view(master_, layout_.units.at(unit).offset, layout_.units[unit].size);
}

at::Tensor ParameterArena::unit_gradient(size_t unit) const {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  return view(gradient_, layout_.units.at(unit).offset, layout_.units[unit].size);
}

at::Tensor ParameterArena::unit_working(size_t unit) const {
  if (working_.is_same(master_)) return {};
  return view(working_, layout_.units.at(unit).offset, layout_.units[unit].size);
}

at::Tensor ParameterArena::unit_remainder(size_t unit) const {
  if (!remainder_.defined()) return {};
  return view(remainder_, layout_.units.at(unit).offset, layout_.units[unit].size);
}

void ParameterArena::refresh_working(size_t unit) {
  const at::Tensor master = unit_master(unit), working = unit_working(unit);
  if (master.defined() && working.defined()) split_master_into(master, working, {});
}

void ParameterArena::refresh_vectors() {
  if (vectors_.defined()) join_master_into(working_, remainder_, vectors_, vector_places_);
}

std::vector<int64_t> ParameterArena::fused_shape(const std::string& first, const std::string& last) const {
  const ArenaEntry& begin = entry(first);
  const ArenaEntry& end = entry(last);
  COPPICE_CHECK(&begin <= &end, fmt::format("'{}' lies behind '{}'", first, last));
  std::vector<int64_t> shape = begin.shape;
  int64_t offset = begin.offset;
  shape[0] = 0;
  for (const ArenaEntry* entry = &begin; entry <= &end; ++entry) {
    COPPICE_CHECK(std::ranges::equal(entry->shape | std::views::drop(1), shape | std::views::drop(1)),
                  fmt::format("'{}' and '{}' differ in columns", first, entry->name));
    COPPICE_CHECK(entry->offset == offset, fmt::format("'{}' is not adjacent to the entry before it", entry->name));
    shape[0] += entry->shape[0];
    offset += entry->size;
  }
  return shape;
}

at::Tensor ParameterArena::fused_parameter(const std::string& first, const std::string& last) const {
  return leaf(entry(first), fused_shape(first, last));
}

at::Tensor ParameterArena::fused_gradient(const std::string& first, const std::string& last) const {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  return view(gradient_, entry(first).offset, fused_shape(first, last));
}

}  // namespace coppice
