// What `coppice bench` measures and prints: counts by hand, the shape of its output, never a time.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "recipes/bench/kernel_rows.h"
#include "recipes/bench/measure.h"
#include "recipes/bench/timing.h"
#include "recipes/folder/machine.h"
#include "src/model/parameters.h"
#include "src/tensors/cuda_devices.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// 32 tokens of the least model.
BenchShape tiny_shape() {
  BenchShape shape{.work = reading_work(preset("test", ""), 16, 0), .on = {}};
  shape.work.rows = 2;
  shape.work.steps = 1;
  return shape;
}

/// Bytes of a chunk of logits in bf16, which a live teacher has beside the student's.
double chunk_of_teacher(const BenchShape& shape) {
  return 2 * static_cast<double>(shape.tokens() * shape.work.config.vocab_size);
}

const HotPath& path(const std::string& name) {
  return *std::ranges::find_if(hot_paths(), [&](const HotPath& one) { return one.name == name; });
}

std::vector<nlohmann::json> parsed(const std::string& lines) {
  std::vector<nlohmann::json> objects;
  std::istringstream stream(lines);
  for (std::string line; std::getline(stream, line);) objects.push_back(nlohmann::json::parse(line));
  return objects;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hot paths: each runs, moves or computes, and is predicted for every device") {
    const BenchShape shape = tiny_shape();
    std::set<std::string> names;
    for (const HotPath& one : hot_paths()) {
      const std::string name = one.name;
      CAPTURE(name);
      CHECK(names.insert(name).second);
      const PreparedPath prepared = one.prepare(shape);
      for (int call = 0; call < 2; ++call) {
        if (prepared.before) prepared.before();
        CHECK(prepared.run().isfinite().all().item<bool>());
      }
      CHECK((prepared.bytes > 0) != (prepared.flops > 0));
      for (const DeviceRow& row : device_rows()) CHECK(prepared.predicted_s(row) > 0);
    }
  }

  TEST_CASE("hot paths: bytes, FLOPs and predictions by hand") {
    const BenchShape shape = tiny_shape();  // N 32, T 16, D 32, heads 2 and 1 of 16, 2 layers
    const ModelConfig& config = shape.work.config;
    const double N = 32, V = static_cast<double>(config.vocab_size), P = shape.work.parameters;
    const auto prepared = [&](const char* name) { return path(name).prepare(shape); };
    CHECK(prepared("norm").bytes == 4 * N * 32 * (4 + 4));
    CHECK(prepared("qk_norm_rope").bytes == 4 * N * (48 * (2 + 3) + 16 * 2));
    const double F = static_cast<double>(config.intermediate_size[0]);
    CHECK(prepared("swiglu").bytes == 4 * N * F * (3 + 5));
    CHECK(prepared("soft_top_k").bytes == 4 * 2 * F * (3 + 3));
    CHECK(prepared("adastar").bytes == 44 * P);
    CHECK(prepared("adamw").bytes == 36 * P);
    CHECK(prepared("attention").flops == 14 * N * 17 / 2 * 32);
    CHECK(prepared("linear_qkv").flops == 6 * N * 32 * 64);
    CHECK(prepared("linear_o").flops == 6 * N * 32 * 32);
    CHECK(prepared("linear_gate_up").flops == 6 * N * 32 * 2 * F);
    CHECK(prepared("linear_down").flops == 6 * N * F * 32);
    CHECK(prepared("label_mix").flops == 6 * N * 32 * V);
    CHECK(prepared("kl").flops == 8 * N * 32 * V);
    CHECK(prepared("train_step").flops == N * training_flops_per_token(config, 16));
    CHECK(prepared("mask_step").flops == prepared("train_step").flops);
    CHECK(prepared("distil_step").flops ==
          prepared("train_step").flops + N * forward_flops_per_token(config, 16));  // the teacher only reads

    // 2 layers, 2 heads of 16: all 16 scores of a row instead of 17/2
    const double square = 2.0 * 2 * 32 * (2 * 16 - 17);
    CHECK(prepared("train_step").step->full_flops == prepared("train_step").flops + N * 3 * square);
    CHECK(prepared("distil_step").step->full_flops == prepared("distil_step").flops + N * 4 * square);
    CHECK(prepared("train_step").step->planned_bytes == training_memory(shape.work, {.micro_rows = 2}).total());
    BenchShape again = shape;
    again.recompute = Recompute::elementwise;
    CHECK(path("mask_step").prepare(again).step->planned_bytes ==
          training_memory(shape.work, {.micro_rows = 2, .recompute = Recompute::elementwise}).total());
    CHECK(prepared("distil_step").step->planned_bytes ==
          training_memory(shape.work, {.micro_rows = 2}).total() + chunk_of_teacher(shape) + 6 * P);
    CHECK_FALSE(prepared("norm").step.has_value());

    const DeviceRow& device = *find_device_row("h200");
    const KernelShape sizes = kernel_shape(shape.work, 32);
    CHECK(prepared("norm").predicted_s(device) ==
          predicted_seconds(cost_of(Kernel::residual_rms_norm), sizes, device.rates) +
              predicted_seconds(cost_of(Kernel::residual_rms_norm_backward), sizes, device.rates));
    CHECK(prepared("linear_down").predicted_s(device) == linear_seconds(32, F, 32, device));
    CHECK(linear_seconds(8192, 3072, 16128, device) ==
          doctest::Approx(3 * 2.0 * 8192 * 3072 * 16128 / (0.95 * 790e12)));
    BenchShape quick = shape;
    quick.attention = AttentionMode::fast;
    for (const char* name : {"attention", "train_step"})
      CHECK(path(name).prepare(quick).predicted_s(device) <= prepared(name).predicted_s(device));
    CHECK(path("attention").prepare(quick).predicted_s(device) < prepared("attention").predicted_s(device));
  }

  TEST_CASE("hot paths: whole steps with a split master and products of bfloat16, as a device has them") {
    const BenchShape shape =
        bench_shape({.device = at::kCPU, .compute = at::kBFloat16},
                    {.model = "test", .seq_len = 16, .rows = 2, .recompute = Recompute::layer, .split_master = true});
    CHECK(shape.on.split_master);
    for (const char* name : {"train_step", "mask_step", "distil_step", "adastar"}) {
      CAPTURE(name);
      const PreparedPath prepared = path(name).prepare(shape);
      if (prepared.before) prepared.before();
      CHECK(prepared.run().isfinite().all().item<bool>());
      if (std::string(name) == "train_step")
        CHECK(prepared.step->planned_bytes ==
              training_memory(shape.work, {.micro_rows = 2, .recompute = Recompute::layer, .split_master = true})
                  .total());
    }
  }

  TEST_CASE("bench: shares are rates by the ceilings, and a line holds what was measured") {
    const bench::Ceilings roof{.gemm_gflops = 100, .copy_gbs = 10};
    const MeasuredPath norm = measure_path(path("norm"), tiny_shape(), 0, roof),
                       loss = measure_path(path("label_mix"), tiny_shape(), 0, roof);
    CHECK(norm.calls >= 3);
    CHECK(norm.share_of_copy == norm.gbs / 10);
    CHECK(norm.gbs == doctest::Approx(4 * 32 * 32 * 8 / norm.median_s / 1e9));
    CHECK(norm.gflops == 0);
    CHECK(norm.predicted_s.empty());  // this is no device
    CHECK(loss.share_of_gemm == loss.gflops / 100);
    CHECK(loss.tokens_per_s == doctest::Approx(32 / loss.median_s));
    CHECK(norm.p20_s <= norm.median_s);
    CHECK(norm.median_s <= norm.p80_s);
    MeasuredPath on_device = norm;
    for (const DeviceRow& row : device_rows()) on_device.predicted_s.push_back(row.rates.bytes);
    CHECK(path_json(on_device)["predicted_s"]["h100"] == 3.0e12);
    CHECK_FALSE(path_json(norm).contains("predicted_s"));
    CHECK_FALSE(path_json(norm).contains("allocations"));
    CHECK_FALSE(path_json(norm).contains("share_of_gemm"));
  }

  TEST_CASE(
      "bench: a step says what it allocates, and on a device what it holds and what share of the peak it reaches") {
    const bench::Ceilings roof{.gemm_gflops = 100, .copy_gbs = 10};
    MeasuredPath measured = measure_path(path("mask_step"), tiny_shape(), 0, roof);
    REQUIRE(measured.step.has_value());
    CHECK(measured.step->kernels.empty());  // the CPU's loops are no launch
    CHECK(path_json(measured).contains("allocations_per_step"));
    for (const char* key : {"mfu_causal", "segments", "card_in_use_bytes", "planned_bytes", "kernels"})
      CHECK_FALSE(path_json(measured).contains(key));

    measured.calls = 4;
    measured.step = MeasuredStep{.allocations = 6,
                                 .segments = 2,
                                 .mfu_causal = 0.5,
                                 .mfu_full = 0.6,
                                 .peak_allocated = 10,
                                 .peak_held = 20,
                                 .card_in_use = 30,
                                 .planned_bytes = 25,
                                 .kernels = {{.kernel = "swiglu", .launches = 3, .seconds = 0.5}}};
    const auto json = path_json(measured);
    CHECK(json["allocations_per_step"] == 1.5);
    CHECK(json["segments"] == 2);
    CHECK(json["mfu_full"] == 0.6);
    CHECK(json["peak_held_bytes"] == 20);
    CHECK(json["planned_bytes"] == 25);
    CHECK(json["kernels"]["swiglu"]["launches"] == 3);
  }

  TEST_CASE("bench: the shape that is asked for, and what stays as it was") {
    const BenchShape as_it_is = bench_shape({});
    CHECK(as_it_is.work.config.hidden_size == 256);
    CHECK(as_it_is.tokens() == 1024);
    const BenchShape on_device = bench_shape({.device = at::Device(at::kCUDA, 0), .compute = at::kBFloat16});
    CHECK(on_device.work.config == preset("afm-3b", ""));
    CHECK(on_device.tokens() == 8192);
    const BenchShape asked = bench_shape({}, {.model = "test", .seq_len = 32, .rows = 3, .ffn_size = 48});
    CHECK(asked.work.config.hidden_size == preset("test", "").hidden_size);
    CHECK((asked.work.config.intermediate_size == std::vector<int64_t>{48, 48}));
    CHECK(asked.work.seq_len == 32);
    CHECK(asked.work.rows == 3);
    CHECK(asked.work.parameters == static_cast<double>(count_parameters(asked.work.config)));
  }

  TEST_CASE("bench: every row of the table of predictions is measured through an operation, and repeats") {
    for (const PredictedRow& row : predicted_rows()) {
      const std::string names = kernel_names(row);
      CAPTURE(names);
      const MeasuredKernels measured =
          measure_kernels(row, {.device = at::kCPU, .compute = at::kBFloat16}, {.copy_gbs = 10}, nullptr);
      const auto json = kernels_json(measured);
      CHECK(json["case"] == "kernel");
      CHECK(json["kernels"].size() == row.kernels.size());
      CHECK(measured.skipped == "");
      CHECK(measured.median_s > 0);
      CHECK(measured.repeats);
      CHECK(json["repeats"] == true);
      CHECK_FALSE(json.contains("gbs"));  // of a tiny shape they say nothing of the row
      CHECK_FALSE(json.contains("predicted_us"));
    }
  }

  TEST_CASE("bench: a row that was measured on a device stands beside its prediction") {
    const PredictedRow& row = predicted_rows().front();
    const MeasuredKernels measured{.row = &row,
                                   .skipped = "",
                                   .calls = 30,
                                   .median_s = 2e-4,
                                   .p20_s = 2e-4,
                                   .p80_s = 2e-4,
                                   .gbs = 2000,
                                   .share_of_copy = 0.5,
                                   .predicted_s = 1e-4,
                                   .repeats = false};
    const auto json = kernels_json(measured);
    CHECK(json["shape"] == row.in_words);
    CHECK(json["median_us"] == doctest::Approx(200));
    CHECK(json["measured_by_predicted"] == doctest::Approx(2));
    const std::string table = kernels_table({measured}, find_device_row("h200"));
    for (const char* word : {"h200 predicted", "residual_rms_norm at N 16,384, D 3072", "200.0", "2.00", "50%", "no"})
      CHECK(table.find(word) != std::string::npos);
  }

  TEST_CASE("gemm_gflops, peak_gflops: one rate of the CPU, and a data sheet's of devices that are known by name") {
    const double rate = gemm_gflops();
    CHECK(rate > 0);
    CHECK(gemm_gflops({.device = at::kCPU, .compute = at::kBFloat16}) == rate);  // measured once, in fp32
    CHECK(peak_gflops({}) == rate);
    for (const DeviceRow& row : device_rows()) CHECK(find_row_of_device(row.cuda_name) == &row);
    CHECK(std::string(find_row_of_device("NVIDIA H200")->name) == "h200");
    for (const char* name : {"", "NVIDIA H200 NVL", "NVIDIA H100 PCIe", "h200"})
      CHECK(find_row_of_device(name) == nullptr);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("gemm_gflops, peak_gflops: of a device in the type that it computes in") {
    const at::Device device(at::kCUDA, 0);
    if (const std::string why = why_not_here(device); !why.empty()) {
      MESSAGE("skipped: " << why);
      CHECK(!why.empty());
      return;
    }
    const Placement bf16{.device = device, .compute = at::kBFloat16}, fp32{.device = device, .compute = at::kFloat};
    CHECK(gemm_gflops(fp32) > 0);
    CHECK(gemm_gflops(bf16) > 1.5 * gemm_gflops(fp32));  // other units multiply bf16
    CHECK(peak_gflops(fp32) == gemm_gflops(fp32));
    const DeviceRow* const row = find_row_of_device(describe_cuda_device(device).name);
    CHECK(peak_gflops(bf16) == (row == nullptr ? gemm_gflops(bf16) : row->dense_flops / 1e9));
    CHECK(describe_cuda_device(device).bytes > 1e9);
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("bench: a table for people, a JSON line for the ceilings and for each path") {
    const Scratch scratch("bench");
    const Outcome table = run(scratch.path, {"bench", "--only", "norm", "train_step", "--seconds", "0", "--threads",
                                             "1", "--json", "bench.jsonl"});
    INFO(table.out << table.err);
    REQUIRE(table.code == 0);
    for (const char* word : {"1 threads", "products", "copies", "norm", "train_step", "tokens/s"})
      CHECK(table.out.find(word) != std::string::npos);
    CHECK(table.out.find("predicted") == std::string::npos);
    const std::vector<nlohmann::json> lines = parsed(slurp(scratch.path / "bench.jsonl"));
    REQUIRE(lines.size() == 3);
    CHECK(lines[0]["case"] == "ceilings");
    CHECK(lines[0]["threads"] == 1);
    for (const char* key : {"gemm_gflops", "copy_gbs"}) CHECK(lines[0][key] > 0);
    CHECK(lines[1]["case"] == "norm");
    CHECK(lines[2]["case"] == "train_step");
    for (size_t i = 1; i < lines.size(); ++i)
      for (const char* key : {"calls", "median_s", "p20_s", "p80_s", i == 1 ? "gbs" : "gflops",
                              i == 1 ? "share_of_copy" : "share_of_gemm"})
        CHECK(lines[i].at(key) > 0);

    const Outcome printed =
        run(scratch.path, {"bench", "--only", "soft_top_k", "--seconds", "0", "--threads", "1", "--json", "-"});
    CHECK(printed.code == 0);
    CHECK(parsed(printed.out).size() == 2);
  }

  TEST_CASE("bench: steps of an asked shape, and rows of the table of predictions") {
    const Scratch scratch("bench_asked");
    const Outcome steps =
        run(scratch.path, {"bench",     "--model", "test",      "--seq-len",  "16",        "--rows",      "2",
                           "--ffn",     "48",      "--only",    "train_step", "mask_step", "--recompute", "elementwise",
                           "--seconds", "0",       "--threads", "1",          "--json",    "steps.jsonl"});
    INFO(steps.out << steps.err);
    REQUIRE(steps.code == 0);
    CHECK(steps.out.find("FFN 48, vocabulary 300, 2 x 16 tokens") != std::string::npos);
    CHECK(steps.out.find("mask_step: ") != std::string::npos);
    const std::vector<nlohmann::json> lines = parsed(slurp(scratch.path / "steps.jsonl"));
    REQUIRE(lines.size() == 3);
    for (size_t i = 1; i < lines.size(); ++i) CHECK(lines[i].contains("allocations_per_step"));

    const Outcome rows = run(scratch.path, {"bench", "--kernels", "--only", "soft_top_k", "label_mix_rows", "--threads",
                                            "1", "--json", "-"});
    INFO(rows.out << rows.err);
    REQUIRE(rows.code == 0);
    const std::vector<nlohmann::json> kernels = parsed(rows.out);
    REQUIRE(kernels.size() == 4);  // the ceilings, two vocabularies, the masks
    CHECK(kernels[0]["case"] == "ceilings");
    for (size_t i = 1; i < kernels.size(); ++i) CHECK(kernels[i]["repeats"] == true);
    CHECK(kernels[3]["kernels"][0] == "soft_top_k");
  }

  TEST_CASE("bench: what cannot be measured or written is refused") {
    const Scratch scratch("bench_refused");
    const auto code = [&](const std::vector<std::string>& flags) {
      std::vector<std::string> words = {"bench"};
      words.insert(words.end(), flags.begin(), flags.end());
      return run(scratch.path, words).code;
    };
    CHECK(code({"--only", "abacus"}) == 2);
    CHECK(code({"--seconds", "-1"}) == 2);
    CHECK(code({"--device", "abacus"}) == 2);
    CHECK(code({"--device", "cuda:99"}) == 1);
    CHECK(code({"--model", "abacus"}) == 2);
    CHECK(code({"--ffn", "1"}) == 2);
    CHECK(code({"--recompute", "abacus"}) == 2);
    const auto said = [&](const char* path) {
      return run(scratch.path, {"bench", "--only", path, "--recompute", "layer", "--model", "test", "--seconds", "0"})
          .err;
    };
    CHECK(said("norm").find("--recompute is set and has no effect on the paths of --only") != std::string::npos);
    CHECK(said("train_step").find("has no effect") == std::string::npos);
    CHECK(code({"--only", "train_step", "--master", "split"}) == 2);  // a device's, and this is the CPU
    CHECK(code({"--only", "attention", "--attention", "fast"}) == 2);
    CHECK(code({"--kernels", "--seconds", "1"}) == 2);        // would have no effect
    CHECK(code({"--kernels", "--model", "test"}) == 2);       // the same
    CHECK(code({"--kernels", "--only", "train_step"}) == 2);  // a path
    CHECK(code({"--only", "kl_rows"}) == 2);                  // a kernel
    spill(scratch.path / "file", "no folder");
    CHECK(code({"--only", "norm", "--seconds", "0", "--json", "file/bench.jsonl"}) == 4);
  }
}
