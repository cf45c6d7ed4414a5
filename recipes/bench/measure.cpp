#include "recipes/bench/measure.h"

#include <fmt/format.h>

#include <algorithm>

#include "recipes/bench/timing.h"
#include "recipes/folder/machine.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/tensors/attention.h"
#include "src/tensors/caching_allocator.h"
#include "src/tensors/cuda_devices.h"

namespace coppice {
namespace {

constexpr size_t kFewestTurns = 3;
constexpr int kStepsBefore = 3;        // after which a step is to ask for no more memory
constexpr double kTurnSeconds = 2e-3;  // of calls that follow each other without a look

void check_finite(const HotPath& path, const at::Tensor& result) {
  COPPICE_CHECK(result.isfinite().all().item<bool>(), fmt::format("what {} leaves is not finite", path.name));
}

/// Blocks asked of the system, or of the driver, so far.
int64_t num_allocations(at::Device device) {
  return device.is_cpu() ? static_cast<int64_t>(caching_allocator_report().num_system_calls)
                         : card_memory(device).allocations;
}

/// What was allocated up to the end of the warm-up.
struct MemoryBefore {
  int64_t allocations = 0, segments = 0;
  explicit MemoryBefore(at::Device device) : allocations(num_allocations(device)) {
    if (device.is_cpu()) return;
    segments = card_memory(device).segments;
    start_card_peak(device);
  }
};

/// Seconds of `calls` calls.
double take_turn(const PreparedPath& path, int64_t calls) {
  if (path.before) path.before();
  return bench::seconds([&] {
    at::Tensor result;
    for (int64_t call = 0; call < calls; ++call) result = path.run();
    bench::wait_for(result);
  });
}

std::string shape_text(const BenchShape& shape) {
  const ModelConfig& config = shape.work.config;
  return fmt::format("{} layers x {}, heads {}/{} x {}, FFN {}, vocabulary {}, {} x {} tokens",
                     config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                     config.num_key_value_heads, config.head_dim, config.intermediate_size.front(), config.vocab_size,
                     shape.work.rows, shape.work.seq_len);
}

std::string where_text(const BenchShape& shape) {
  if (!shape.on.device.is_cpu())
    return fmt::format("{} ({})", device_name(shape.on.device), describe_cuda_device(shape.on.device).name);
  const Json host = host_json();
  return fmt::format("{}, {}, {} threads", host.at("cpu").get<std::string>(),
                     host.at("cpu_capability").get<std::string>(), host.at("threads").get<int>());
}

std::string time_text(double seconds) {
  return seconds < 1e-3 ? fmt::format("{:.1f} us", 1e6 * seconds)
         : seconds < 1  ? fmt::format("{:.2f} ms", 1e3 * seconds)
                        : fmt::format("{:.2f} s", seconds);
}

/// Of calls that have been measured, and of one more.
MeasuredStep look_at_step(const PreparedPath& prepared, const MeasuredPath& measured, const MemoryBefore& before,
                          at::Device device) {
  MeasuredStep step{.allocations = num_allocations(device) - before.allocations};
  if (!device.is_cpu()) {
    const CardMemory memory = card_memory(device);
    step.segments = memory.segments - before.segments;
    step.peak_allocated = memory.peak_allocated;
    step.peak_held = memory.peak_held;
    step.card_in_use = memory.in_use;
    step.planned_bytes = prepared.step->planned_bytes;
    if (const DeviceRow* row = find_row_of_device(describe_cuda_device(device).name); row != nullptr) {
      step.mfu_causal = prepared.flops / measured.median_s / row->dense_flops;
      step.mfu_full = prepared.step->full_flops / measured.median_s / row->dense_flops;
    }
  }
  LaunchTimes times;
  take_turn(prepared, 1);
  step.kernels = sums_by_kernel(times.take());
  return step;
}

/// A line a step: what the table has no column for.
std::string step_text(const MeasuredPath& measured, bool on_device) {
  const MeasuredStep& step = *measured.step;
  std::string text =
      fmt::format("{}: {} allocations in {} steps", measured.path->name, step.allocations, measured.calls);
  if (!on_device) return text + "\n";
  text += fmt::format(", {} more segments; memory {} at most in tensors, {} held, {} in use on the card, {} planned",
                      step.segments, format_bytes(step.peak_allocated), format_bytes(step.peak_held),
                      format_bytes(step.card_in_use), format_bytes(step.planned_bytes));
  if (step.mfu_causal > 0)
    text += fmt::format("; MFU {:.1f}% causal, {:.1f}% full", 100 * step.mfu_causal, 100 * step.mfu_full);
  return text + "\n";
}

}  // namespace

MeasuredPath measure_path(const HotPath& path, const BenchShape& shape, double seconds, const bench::Ceilings& roof) {
  const bool on_device = !shape.on.device.is_cpu();
  if (on_device) release_card_memory();  // of the path before
  const PreparedPath prepared = path.prepare(shape);
  if (prepared.before) prepared.before();
  check_finite(path, prepared.run());
  if (prepared.step) {
    if (on_device) release_card_memory();  // what only the look at the result needed
    for (int step = 0; step < kStepsBefore; ++step) take_turn(prepared, 1);
  }
  const double first_s = take_turn(prepared, 1);
  const std::optional<MemoryBefore> memory =
      prepared.step ? std::make_optional<MemoryBefore>(shape.on.device) : std::nullopt;
  const int64_t calls =
      prepared.before ? 1 : std::clamp(static_cast<int64_t>(kTurnSeconds / first_s), int64_t{1}, int64_t{1000});
  std::vector<double> turns;
  for (double spent = 0; spent < seconds || turns.size() < kFewestTurns;) {
    const double turn_s = take_turn(prepared, calls);
    turns.push_back(turn_s / static_cast<double>(calls));
    spent += turn_s;
  }
  MeasuredPath measured{.path = &path,
                        .calls = calls * static_cast<int64_t>(turns.size()),
                        .median_s = bench::quantile(turns, 0.5),
                        .p20_s = bench::quantile(turns, 0.2),
                        .p80_s = bench::quantile(turns, 0.8)};
  measured.gflops = prepared.flops / measured.median_s / 1e9;
  measured.share_of_gemm = measured.gflops / roof.gemm_gflops;
  measured.gbs = prepared.bytes / measured.median_s / 1e9;
  measured.share_of_copy = measured.gbs / roof.copy_gbs;
  measured.tokens_per_s = prepared.tokens / measured.median_s;
  if (on_device)
    for (const DeviceRow& row : device_rows()) measured.predicted_s.push_back(prepared.predicted_s(row));
  if (memory) measured.step = look_at_step(prepared, measured, *memory, shape.on.device);
  return measured;
}

nlohmann::ordered_json ceilings_json(const BenchShape& shape, const bench::Ceilings& roof) {
  const Json host = host_json(), versions = versions_json();
  nlohmann::ordered_json json = {{"case", "ceilings"},
                                 {"gemm_gflops", roof.gemm_gflops},
                                 {"copy_gbs", roof.copy_gbs},
                                 {"device", device_name(shape.on.device)},
                                 {"compute", dtype_name(shape.on.compute)},
                                 {"cpu", host.at("cpu").get<std::string>()},
                                 {"cpu_capability", host.at("cpu_capability").get<std::string>()},
                                 {"threads", host.at("threads").get<int>()},
                                 {"shape", shape_text(shape)},
                                 {"coppice", versions.at("coppice").get<std::string>()},
                                 {"git", versions.at("git").get<std::string>()}};
  if (!shape.on.device.is_cpu()) {
    json["attention"] = attention_text(shape.on, shape.work.config.head_dim);
    json["card"] = describe_cuda_device(shape.on.device).name;
    if (const DeviceRow* row = find_row_of_device(json["card"].get<std::string>()); row != nullptr)
      json["card_row"] = row->name;
  }
  return json;
}

nlohmann::ordered_json path_json(const MeasuredPath& measured) {
  nlohmann::ordered_json json = {{"case", measured.path->name},
                                 {"calls", measured.calls},
                                 {"median_s", measured.median_s},
                                 {"p20_s", measured.p20_s},
                                 {"p80_s", measured.p80_s}};
  const auto put = [&](const char* key, double value) {
    if (value > 0) json[key] = value;
  };
  put("tokens_per_s", measured.tokens_per_s);
  put("gflops", measured.gflops);
  put("share_of_gemm", measured.share_of_gemm);
  put("gbs", measured.gbs);
  put("share_of_copy", measured.share_of_copy);
  for (size_t row = 0; row < measured.predicted_s.size(); ++row)
    json["predicted_s"][device_rows()[row].name] = measured.predicted_s[row];
  if (!measured.step) return json;
  const MeasuredStep& step = *measured.step;
  json["allocations"] = step.allocations;
  json["allocations_per_step"] = static_cast<double>(step.allocations) / static_cast<double>(measured.calls);
  if (step.card_in_use > 0) json["segments"] = step.segments;
  put("mfu_causal", step.mfu_causal);
  put("mfu_full", step.mfu_full);
  put("peak_allocated_bytes", step.peak_allocated);
  put("peak_held_bytes", step.peak_held);
  put("card_in_use_bytes", step.card_in_use);
  put("planned_bytes", step.planned_bytes);
  for (const KernelTime& kernel : step.kernels)
    json["kernels"][std::string(kernel.kernel)] = {{"launches", kernel.launches}, {"seconds", kernel.seconds}};
  return json;
}

std::string ceilings_text(const BenchShape& shape, const bench::Ceilings& roof) {
  const std::string attention =
      shape.on.device.is_cpu() ? "" : ", attention " + attention_text(shape.on, shape.work.config.head_dim);
  return fmt::format("{} in {}{}: products {:.1f} GFLOP/s, copies {:.1f} GB/s\n", where_text(shape),
                     dtype_name(shape.on.compute), attention, roof.gemm_gflops, roof.copy_gbs);
}

std::string bench_table(const BenchShape& shape, const bench::Ceilings& roof, const std::vector<MeasuredPath>& paths) {
  std::string text = ceilings_text(shape, roof) + shape_text(shape) + "\n\n";
  text += fmt::format("{:<13} {:>10} {:>21} {:>14} {:>10}", "path", "time", "share of the ceiling", "rate", "tokens/s");
  if (!shape.on.device.is_cpu())
    for (const DeviceRow& row : device_rows()) text += fmt::format(" {:>15}", fmt::format("{} predicted", row.name));
  text += "  what it is\n";
  for (const MeasuredPath& measured : paths) {
    const bool computes = measured.gflops > 0;
    text += fmt::format(
        "{:<13} {:>10} {:>21} {:>14} {:>10}", measured.path->name, time_text(measured.median_s),
        fmt::format("{:.0f}% of {}", 100 * (computes ? measured.share_of_gemm : measured.share_of_copy),
                    computes ? "products" : "copies"),
        computes ? fmt::format("{:.1f} GFLOP/s", measured.gflops) : fmt::format("{:.2f} GB/s", measured.gbs),
        measured.tokens_per_s > 0 ? format_count(measured.tokens_per_s) : "-");
    for (const double predicted_s : measured.predicted_s) text += fmt::format(" {:>15}", time_text(predicted_s));
    text += fmt::format("  {}\n", measured.path->about);
  }
  std::string steps;
  for (const MeasuredPath& measured : paths)
    if (measured.step) steps += step_text(measured, !shape.on.device.is_cpu());
  return steps.empty() ? text : text + "\n" + steps;
}

}  // namespace coppice
