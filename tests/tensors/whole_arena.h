// All of an arena at once, for tests: copies, entry behind entry without the padding between them.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "src/tensors/arena.h"

namespace coppice {

inline at::Tensor join_entries(const ArenaLayout& layout,
                               const std::function<at::Tensor(const std::string&)>& tensor_of) {
  std::vector<at::Tensor> parts;
  for (const ArenaEntry& entry : layout.entries) parts.push_back(tensor_of(entry.name).detach().flatten());
  return at::cat(parts);
}

inline at::Tensor whole_master(const ParameterArena& arena) {
  const MasterReader master = arena.read_master();
  return join_entries(arena.layout(), [&](const std::string& name) { return master[name]; });
}

inline at::Tensor whole_gradient(const ParameterArena& arena) {
  return join_entries(arena.layout(), [&](const std::string& name) { return arena.gradient_of(name); });
}

/// `flat` is laid out like the arena, padding included.
inline void fill_gradient(const ParameterArena& arena, const at::Tensor& flat) {
  for (const ArenaEntry& entry : arena.layout().entries)
    arena.gradient_of(entry.name).copy_(flat.narrow(0, entry.offset, entry.size).view(entry.shape));
}

inline void scale_master(ParameterArena& arena, double factor) {
  const MasterEditor master = arena.edit_master();
  for (const ArenaEntry& entry : arena.layout().entries) master[entry.name].mul_(factor);
}

}  // namespace coppice
