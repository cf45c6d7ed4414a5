// The share of one task: of W tasks over one folder, task t takes the files, and the parts of a reduction, t, t + W,
// ...
#pragma once

#include <cstdint>
#include <string>

namespace coppice {

struct TaskShare {
  uint32_t task = 0, tasks = 1;
  bool owns(uint64_t number) const { return number % tasks == task; }
};

/// `text` is t/W; empty: what a launcher says (SLURM_ARRAY_TASK_ID and _COUNT, SLURM_PROCID and SLURM_NTASKS,
/// OMPI_COMM_WORLD_RANK and _SIZE), or the only task. UserError::recipe.
TaskShare find_task_share(const std::string& text);

}  // namespace coppice
