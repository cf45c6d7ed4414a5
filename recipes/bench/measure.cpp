#include "recipes/bench/measure.h"

#include <fmt/format.h>

#include <algorithm>

#include "recipes/bench/timing.h"
#include "recipes/folder/machine.h"
#include "src/base/errors.h"
#include "src/base/log.h"

namespace coppice {
namespace {

constexpr size_t kFewestTurns = 3;
constexpr double kTurnSeconds = 2e-3;  // of calls that follow each other without a look

void check_finite(const HotPath& path, const at::Tensor& result) {
  COPPICE_CHECK(result.isfinite().all().item<bool>(), fmt::format("what {} leaves is not finite", path.name));
}

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
  if (!shape.on.device.is_cpu()) return device_name(shape.on.device);
  const Json host = host_json();
  return fmt::format("{}, {}, {} threads", host.at("cpu").get<std::string>(),
                     host.at("cpu_capability").get<std::string>(), host.at("threads").get<int>());
}

std::string time_text(double seconds) {
  return seconds < 1e-3 ? fmt::format("{:.1f} us", 1e6 * seconds)
         : seconds < 1  ? fmt::format("{:.2f} ms", 1e3 * seconds)
                        : fmt::format("{:.2f} s", seconds);
}

}  // namespace

MeasuredPath measure_path(const HotPath& path, const BenchShape& shape, double seconds, const bench::Ceilings& roof) {
  const PreparedPath prepared = path.prepare(shape);
  if (prepared.before) prepared.before();
  check_finite(path, prepared.run());
  const double first_s = take_turn(prepared, 1);
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
  if (!shape.on.device.is_cpu())
    for (const DeviceRow& row : device_rows()) measured.predicted_s.push_back(prepared.predicted_s(row));
  return measured;
}

nlohmann::ordered_json ceilings_json(const BenchShape& shape, const bench::Ceilings& roof) {
  const Json host = host_json(), versions = versions_json();
  return {{"case", "ceilings"},
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
  return json;
}

std::string bench_table(const BenchShape& shape, const bench::Ceilings& roof, const std::vector<MeasuredPath>& paths) {
  std::string text = fmt::format("{} in {}: products {:.1f} GFLOP/s, copies {:.1f} GB/s\n{}\n\n", where_text(shape),
                                 dtype_name(shape.on.compute), roof.gemm_gflops, roof.copy_gbs, shape_text(shape));
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
  return text;
}

}  // namespace coppice
