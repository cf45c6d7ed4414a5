#include "recipes/run/placed_cost.h"

#include <algorithm>
#include <optional>

#include "recipes/folder/devices.h"

namespace coppice {
namespace {

constexpr double kDriverBytes = 1e9;  // of the host: CUDA's libraries and the driver's part, assumed

/// nullopt where the stage computes on the CPU or not at all.
std::optional<CudaDevice> device_of(const Stage& stage) {
  if (!kind_of(stage).computes || stage.placement.device == "cpu") return std::nullopt;
  const at::Device device = place(stage).device;
  if (device.is_cpu()) return std::nullopt;
  return describe_cuda_device(device);
}

/// Models are read and written a tensor at a time; the table of tokens or a matrix of the FFN is the largest.
double largest_tensor_bytes(const std::vector<ModelWork>& works) {
  double largest = 0;
  for (const ModelWork& work : works) {
    const int64_t rows = std::max(work.config.vocab_size, std::ranges::max(work.config.intermediate_size));
    largest = std::max(largest, kBytesOfFloat * static_cast<double>(rows * work.config.hidden_size));
  }
  return largest;
}

/// 0 where nothing is known of the device, or of the type that the stage computes in.
double predicted_seconds(const Stage& stage, const StageCost& cost, const CudaDevice& here) {
  if (find_row_of_device(here.name) == nullptr || cost.work.empty()) return 0;
  if (place(stage).compute == at::kFloat) return 0;  // plans are of bf16
  const DeviceRow row = row_of(here);
  const DeviceStage planned = plan_device({cost}, row).stages.front();
  return stage.placement.attention == "fast" ? planned.seconds : planned.repeatable_seconds;
}

}  // namespace

DeviceRow row_of(const CudaDevice& here) {
  const DeviceRow* const known = find_row_of_device(here.name);
  DeviceRow row = known == nullptr ? device_rows().front() : *known;
  row.title = here.name.c_str();
  row.bytes = here.bytes;
  return row;
}

StageCost placed_cost(const Stage& stage, const StageCost& cost) {
  const std::optional<CudaDevice> here = device_of(stage);
  if (!here) return cost;
  StageCost placed = cost;
  placed.memory_bytes = kProgramBytes + kDriverBytes + cost.host_bytes + largest_tensor_bytes(cost.work);
  placed.seconds = predicted_seconds(stage, cost, *here);
  return placed;
}

RecipeCost placed_cost(const Recipe& recipe, RecipeCost cost) {
  cost.memory_bytes = 0;
  for (StageCost& stage : cost.stages) {
    const auto found = std::ranges::find(recipe.stages, stage.name, &Stage::name);
    if (found != recipe.stages.end()) stage = placed_cost(*found, stage);
    cost.memory_bytes = std::max(cost.memory_bytes, stage.memory_bytes);
  }
  return cost;
}

void check_device_fits(const Stage& stage, const StageCost& cost) {
  const std::optional<CudaDevice> here = device_of(stage);
  if (!here) return;
  const DeviceRow row = row_of(*here);
  check_fits(plan_device({cost}, row));
}

}  // namespace coppice
