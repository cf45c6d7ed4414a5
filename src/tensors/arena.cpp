#include "src/tensors/arena.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <new>
#include <utility>

#include "src/base/errors.h"
#include "src/tensors/device.h"

namespace coppice {

namespace {

/// `size` zeros of float32, with the arena's own words when memory is short.
at::Tensor allocate(int64_t size, at::Device device, const char* what) {
  try {
    return at::zeros({size}, at::TensorOptions().dtype(at::kFloat).device(device));
  } catch (const std::exception&) {  // torch's allocator throws c10::Error, operator new std::bad_alloc
    throw DeviceError::out_of_memory(
        fmt::format("{} of the parameters: {} bytes asked; lower the model's size or free memory", what, 4 * size));
  }
}

void check_layout(const ArenaLayout& layout) {
  int64_t end = 0;
  for (const ArenaEntry& entry : layout.entries) {
    int64_t size = 1;
    for (const int64_t extent : entry.shape) size *= extent;
    COPPICE_CHECK(entry.size == size, fmt::format("{}: size {}, but its shape holds {}", entry.name, entry.size, size));
    COPPICE_CHECK(entry.offset >= end, fmt::format("{}: offset {} overlaps the entry before it, which ends at {}",
                                                   entry.name, entry.offset, end));
    end = entry.offset + entry.size;
    COPPICE_CHECK(end <= layout.size, fmt::format("{}: ends at {}, buffer holds {}", entry.name, end, layout.size));
  }
}

}  // namespace

ParameterArena::ParameterArena(ArenaLayout layout, at::Device device) : layout_(std::move(layout)), device_(device) {
  check_available(device_, "the model");
  check_layout(layout_);
  for (size_t i = 0; i < layout_.entries.size(); ++i) index_.emplace(layout_.entries[i].name, i);
  COPPICE_CHECK(index_.size() == layout_.entries.size(), "two entries of one name");
  master_ = allocate(layout_.size, device_, "master copy");
}

void ParameterArena::enable_gradient() {
  if (!gradient_.defined()) gradient_ = allocate(layout_.size, device_, "gradient");
}

void ParameterArena::zero_gradient() {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  const at::NoGradGuard no_grad;
  gradient_.zero_();
}

const ArenaEntry& ParameterArena::entry(const std::string& name) const {
  const auto found = index_.find(name);
  COPPICE_CHECK(found != index_.end(), fmt::format("no parameter '{}'", name));
  return layout_.entries[found->second];
}

at::Tensor ParameterArena::view(const at::Tensor& buffer, int64_t offset, c10::IntArrayRef shape) const {
  const at::NoGradGuard no_grad;
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  return buffer.narrow(0, offset, size).view(shape);
}

at::Tensor ParameterArena::leaf(int64_t offset, c10::IntArrayRef shape) const {
  at::Tensor parameter =
      view(master_, offset, shape).detach();  // a leaf of its own: gradients go to the arena, never to .grad
  if (has_gradient()) parameter.set_requires_grad(true);
  return parameter;
}

at::Tensor ParameterArena::parameter(size_t i) const {
  COPPICE_CHECK(i < layout_.entries.size(), fmt::format("parameter {} of {}", i, layout_.entries.size()));
  return leaf(layout_.entries[i].offset, layout_.entries[i].shape);
}

at::Tensor ParameterArena::parameter(const std::string& name) const {
  return leaf(entry(name).offset, entry(name).shape);
}

at::Tensor ParameterArena::gradient_of(const std::string& name) const {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  return view(gradient_, entry(name).offset, entry(name).shape);
}

std::vector<int64_t> ParameterArena::fused_shape(const std::string& first, const std::string& last) const {
  const ArenaEntry& begin = entry(first);
  const ArenaEntry& end = entry(last);
  COPPICE_CHECK(&begin <= &end, fmt::format("'{}' lies behind '{}'", first, last));
  COPPICE_CHECK(begin.shape.size() == 2, fmt::format("'{}' is no matrix", first));
  int64_t rows = 0, offset = begin.offset;
  for (const ArenaEntry* entry = &begin; entry <= &end; ++entry) {
    COPPICE_CHECK(entry->shape.size() == 2 && entry->shape[1] == begin.shape[1],
                  fmt::format("'{}' and '{}' differ in columns", first, entry->name));
    COPPICE_CHECK(entry->offset == offset, fmt::format("'{}' is not adjacent to the entry before it", entry->name));
    rows += entry->shape[0];
    offset += entry->size;
  }
  return {rows, begin.shape[1]};
}

at::Tensor ParameterArena::fused_parameter(const std::string& first, const std::string& last) const {
  return leaf(entry(first).offset, fused_shape(first, last));
}

at::Tensor ParameterArena::fused_gradient(const std::string& first, const std::string& last) const {
  COPPICE_CHECK(gradient_.defined(), "enable_gradient() was not called");
  return view(gradient_, entry(first).offset, fused_shape(first, last));
}

}  // namespace coppice
