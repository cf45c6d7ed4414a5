#include "recipes/commands/placement_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/tensors/cuda_devices.h"

namespace coppice {

void add_placement(CLI::App* verb, PlacementOptions& options) {
  verb->add_option("--device", options.device,
                   "cpu, cuda, cuda:N, or auto: cuda where program and machine have it, otherwise cpu")
      ->check(
          [](const std::string& device) {
            return device == "auto" || find_device(device)
                       ? std::string()
                       : fmt::format("got '{}', expected one of: auto, cpu, cuda, cuda:1", printable(device));
          },
          "NAME");
  verb->add_option("--compute", options.compute,
                   "fp32, bf16, or auto: bf16 on cuda, fp32 on cpu, where bf16 is a rehearsal and slow")
      ->check(CLI::IsMember({"auto", "fp32", "bf16"}));
}

Placement placed(const PlacementOptions& options) {
  const Placement on = place(options);
  if (const std::string why = why_not_here(on.device); !why.empty())
    throw DeviceError::unavailable(
        fmt::format("--device {}: {}; give --device cpu or auto", printable(options.device), why));
  if (!on.device.is_cpu() || on.compute != at::kFloat)
    log_info(fmt::format("on {} in {}", device_name(on.device), compute_name(on)));
  return on;
}

}  // namespace coppice
