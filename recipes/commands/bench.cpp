// coppice bench: this machine's ceilings, then each hot path of a training step as a share of them.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "recipes/bench/measure.h"
#include "recipes/bench/timing.h"
#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  std::vector<std::string> only;
  double seconds = 1;
  int threads = 0;
  std::string device = "cpu", json;
};

std::vector<std::string> path_names() {
  std::vector<std::string> names;
  for (const HotPath& path : hot_paths()) names.emplace_back(path.name);
  return names;
}

/// bfloat16 on a device, as a run there computes.
Placement place(const std::string& name) {
  const std::optional<at::Device> device = find_device(name);
  if (!device)
    throw UserError::recipe("--device", fmt::format("got '{}', expected cpu, cuda or cuda:N", printable(name)));
  if (const std::string why = why_not_here(*device); !why.empty())
    throw DeviceError::unavailable(fmt::format("--device {}: {}", printable(name), why));
  return {.device = *device, .compute = device->is_cpu() ? at::kFloat : at::kBFloat16};
}

void measure(const Flags& flags) {
  if (!flags.json.empty() && flags.json != "-") {
    const std::filesystem::path folder = std::filesystem::absolute(flags.json).parent_path();
    make_folder(folder);
    check_writable(folder);
  }
  const BenchShape shape = bench_shape(place(flags.device));
  start_torch(flags.threads);
  at::manual_seed(1);
  std::vector<const HotPath*> chosen;
  for (const HotPath& path : hot_paths())
    if (flags.only.empty() || std::ranges::find(flags.only, path.name) != flags.only.end()) chosen.push_back(&path);

  Progress progress("bench", chosen.size(), "path");
  progress.update(0, {{"", "ceilings"}});
  const bench::Ceilings roof = bench::measure_ceilings(shape.on);
  std::string lines = ceilings_json(shape, roof).dump() + "\n";
  std::vector<MeasuredPath> measured;
  for (const HotPath* path : chosen) {
    progress.update(measured.size(), {{"", path->name}});
    measured.push_back(measure_path(*path, shape, flags.seconds, roof));
    lines += path_json(measured.back()).dump() + "\n";
  }
  progress.finish(fmt::format("{} paths measured", measured.size()));
  if (!flags.json.empty() && flags.json != "-") write_file_atomically(flags.json, lines);
  fmt::print("{}", flags.json == "-" ? lines : bench_table(shape, roof, measured));
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb = add_verb(app, "bench",
                            "how fast this machine multiplies and copies, and what share of that each hot path of a "
                            "training step reaches",
                            "coppice bench --threads 2\n  coppice bench --only norm swiglu --json bench.jsonl");
  verb->add_option("--only", flags->only, "these paths alone; one or more")->check(CLI::IsMember(path_names()));
  verb->add_option("--seconds", flags->seconds, "of each path, at least three turns")->check(CLI::Range(0.0, 3600.0));
  verb->add_option("--threads", flags->threads, "of the CPU; 0 = as a run takes them")->check(CLI::Range(0, 1024));
  verb->add_option("--device", flags->device,
                   "cpu, cuda or cuda:N; on a device each path stands beside what is predicted for it");
  verb->add_option("--json", flags->json,
                   "a JSON line for the ceilings and for each path, into a file or - for stdout");
  verb->callback([flags, &action] { action = [flags] { measure(*flags); }; });
}

}  // namespace coppice
