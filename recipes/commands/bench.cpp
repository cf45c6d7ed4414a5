// coppice bench: this machine's ceilings, then each hot path of a training step as a share of them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>
#include <tuple>

#include "recipes/bench/kernel_rows.h"
#include "recipes/bench/measure.h"
#include "recipes/bench/timing.h"
#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/tensors/attention.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  std::vector<std::string> only;
  bool kernels = false;
  AskedShape shape;
  double seconds = 1;
  int threads = 0;
  std::string device = "cpu", json, recompute = "none", master = "fp32", attention = "repeatable";
};

/// Those of `all` that --only names, or all; `names` of one, any of which does.
template <class One, class All, class Names>
std::vector<const One*> chosen(const All& all, const std::vector<std::string>& only, const Names& names) {
  std::vector<std::string> known;
  for (const One& one : all)
    for (const std::string& name : names(one))
      if (std::ranges::find(known, name) == known.end()) known.push_back(name);
  for (const std::string& name : only)
    if (std::ranges::find(known, name) == known.end())
      throw UserError::recipe("--only",
                              fmt::format("got '{}', expected some of: {}", printable(name), fmt::join(known, ", ")));
  const auto is_chosen = [&](const One& one) {
    return only.empty() || std::ranges::any_of(names(one), [&](const std::string& name) {
             return std::ranges::find(only, name) != only.end();
           });
  };
  std::vector<const One*> ones;
  for (const One& one : all)
    if (is_chosen(one)) ones.push_back(&one);
  return ones;
}

std::vector<const HotPath*> chosen_paths(const std::vector<std::string>& only) {
  return chosen<HotPath>(hot_paths(), only, [](const HotPath& path) { return std::vector<std::string>{path.name}; });
}

std::vector<const PredictedRow*> chosen_rows(const std::vector<std::string>& only) {
  return chosen<PredictedRow>(predicted_rows(), only, [](const PredictedRow& row) {
    std::vector<std::string> names;
    for (const Kernel kernel : row.kernels) names.emplace_back(cost_of(kernel).name);
    return names;
  });
}

/// Says what has no effect on the chosen paths.
void warn_of_idle_flags(const Flags& flags) {
  const auto measures = [&](std::initializer_list<std::string_view> names) {
    return std::ranges::any_of(chosen_paths(flags.only), [&](const HotPath* path) {
      return std::ranges::find(names, path->name) != names.end();
    });
  };
  const bool steps = measures({"train_step", "mask_step", "distil_step"});
  for (const auto& [flag, is_set, acts] :
       {std::tuple{"--recompute", flags.recompute != "none", steps},
        {"--master", flags.master != "fp32", steps || measures({"adastar", "adamw"})},
        {"--attention", flags.attention != "repeatable", steps || measures({"attention"})}})
    if (is_set && !acts) log_warning(fmt::format("{} is set and has no effect on the paths of --only", flag));
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

/// JSON lines as they come: a measurement that ends early leaves those before it.
class Lines {
 public:
  explicit Lines(std::string path) : path_(std::move(path)) {}
  void add(const nlohmann::ordered_json& json) {
    if (path_.empty()) return;
    const std::string line = json.dump() + "\n";
    if (path_ == "-") {
      fmt::print("{}", line);
      std::fflush(stdout);
    } else {
      write_file_atomically(path_, lines_ += line);
    }
  }
  bool are_printed() const { return path_ == "-"; }

 private:
  std::string path_, lines_;
};

/// The table for people.
std::string measure_paths(const Flags& flags, const BenchShape& shape, const bench::Ceilings& roof, Lines& lines) {
  const std::vector<const HotPath*> paths = chosen_paths(flags.only);
  Progress progress("bench", paths.size(), "path");
  std::vector<MeasuredPath> measured;
  for (const HotPath* path : paths) {
    progress.update(measured.size(), {{"", path->name}});
    measured.push_back(measure_path(*path, shape, flags.seconds, roof));
    lines.add(path_json(measured.back()));
  }
  progress.finish(fmt::format("{} paths measured", measured.size()));
  return bench_table(shape, roof, measured);
}

std::string measure_rows(const Flags& flags, const BenchShape& shape, const bench::Ceilings& roof, Lines& lines) {
  const std::vector<const PredictedRow*> rows = chosen_rows(flags.only);
  const Placement on{.device = shape.on.device, .compute = at::kBFloat16};
  const DeviceRow* const device =
      on.device.is_cpu() ? nullptr : find_row_of_device(describe_cuda_device(on.device).name);
  Progress progress("bench", rows.size(), "row");
  std::vector<MeasuredKernels> measured;
  for (const PredictedRow* row : rows) {
    progress.update(measured.size(), {{"", kernel_names(*row)}});
    measured.push_back(measure_kernels(*row, on, roof, device));
    lines.add(kernels_json(measured.back()));
  }
  progress.finish(fmt::format("{} rows measured", measured.size()));
  return ceilings_text(shape, roof) + "\n" + kernels_table(measured, device);
}

void measure(const Flags& flags) {
  if (!flags.json.empty() && flags.json != "-") {
    const std::filesystem::path folder = std::filesystem::absolute(flags.json).parent_path();
    make_folder(folder);
    check_writable(folder);
  }
  if (flags.kernels)  // before anything is measured
    chosen_rows(flags.only);
  else
    warn_of_idle_flags(flags);
  const Placement on = place(flags.device);
  AskedShape asked = flags.shape;
  asked.recompute = find_recompute(flags.recompute).value();
  asked.split_master = flags.master == "split";
  asked.attention = flags.attention == "fast" ? AttentionMode::fast : AttentionMode::repeatable;
  if (on.device.is_cpu() && (asked.split_master || asked.attention == AttentionMode::fast))
    throw UserError::recipe(asked.split_master ? "--master" : "--attention",
                            fmt::format("got {}, which is a device's: give --device cuda, or leave it out",
                                        asked.split_master ? "split" : "fast"));
  set_attention_mode(asked.attention);
  const BenchShape shape = bench_shape(on, asked);
  start_torch(flags.threads);
  at::manual_seed(1);
  const bench::Ceilings roof = bench::measure_ceilings(shape.on);
  Lines lines(flags.json);
  lines.add(ceilings_json(shape, roof));
  const std::string table =
      flags.kernels ? measure_rows(flags, shape, roof, lines) : measure_paths(flags, shape, roof, lines);
  if (!lines.are_printed()) fmt::print("{}", table);
}

}  // namespace

void add_bench(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb =
      add_verb(app, "bench",
               "how fast this machine multiplies and copies, and what share of that each hot path of a training step "
               "reaches",
               "coppice bench --threads 2\n  coppice bench --only norm swiglu --json bench.jsonl\n  coppice bench "
               "--device cuda --model honeycrisp-85m --rows 8 --only train_step mask_step\n  coppice bench --device "
               "cuda --kernels");
  verb->add_option("--only", flags->only, "these paths alone, or with --kernels rows with these kernels; one or more");
  CLI::Option* kernels = verb->add_flag(
      "--kernels", flags->kernels,
      "instead of paths the rows of docs/performance.md, each beside its prediction; on a CPU tiny ones");
  CLI::Option* const of_paths[] = {
      verb->add_option("--seconds", flags->seconds, "of each path, at least three turns")
          ->check(CLI::Range(0.0, 3600.0)),
      verb->add_option("--model", flags->shape.model, "a preset; by default a small model, on a device afm-3b")
          ->check(CLI::IsMember(preset_names())),
      verb->add_option("--seq-len", flags->shape.seq_len, "tokens of a sequence; by default 256, on a device 4096")
          ->check(CLI::Range(2, 1 << 20)),
      verb->add_option("--rows", flags->shape.rows, "sequences of a micro-batch; by default 4, on a device 2")
          ->check(CLI::Range(1, 1 << 16)),
      verb->add_option("--ffn", flags->shape.ffn_size, "intermediate_size of every layer, instead of the preset's")
          ->check(CLI::Range(3, 1 << 24)),
      verb->add_option("--recompute", flags->recompute, "of whole steps: what the backward pass computes again")
          ->check(CLI::IsMember(recompute_names())),
      verb->add_option("--master", flags->master, "of whole steps on a device: how parameters are kept")
          ->check(CLI::IsMember({"fp32", "split"})),
      verb->add_option("--attention", flags->attention, "on a device: equal bits in every run, or cuDNN's")
          ->check(CLI::IsMember({"repeatable", "fast"}))};
  for (CLI::Option* const option : of_paths) kernels->excludes(option);
  verb->add_option("--threads", flags->threads, "of the CPU; 0 = as a run takes them")->check(CLI::Range(0, 1024));
  verb->add_option("--device", flags->device,
                   "cpu, cuda or cuda:N; on a device each path stands beside what is predicted for it");
  verb->add_option("--json", flags->json,
                   "a JSON line for the ceilings and for each path, into a file or - for stdout");
  verb->callback([flags, &action] { action = [flags] { measure(*flags); }; });
}

}  // namespace coppice
