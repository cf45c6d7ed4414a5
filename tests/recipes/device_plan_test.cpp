// Predictions for devices against figures worked out by hand for the published shapes, and what `coppice plan --device`
// chooses, prints and refuses.
#include "recipes/run/device_plan.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "recipes/run/placed_cost.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"
#include "tests/recipes/program.h"
#include "tests/tensors/live_bytes.h"

using namespace coppice;
using namespace coppice::test;

namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

const DeviceRow& device(const char* name) { return *find_device_row(name); }

/// 65,536 tokens a step in sequences of 4096.
ModelWork training_of(const char* preset_name) {
  ModelWork work = reading_work(preset(preset_name, ""), 4096, 0);
  work.steps = 10;
  work.rows = 16;
  return work;
}

DeviceStage planned(const ModelWork& work, const char* device_name) {
  const StageCost cost{.name = "core", .kind = "train", .work = {work}};
  return plan_device({cost}, device(device_name)).stages.front();
}

/// Bytes that a forward pass in bfloat16 leaves behind for the backward pass, beside the hidden states it returns.
int64_t bytes_left(const ModelConfig& config, int64_t tokens, Recompute recompute) {
  Model model = make_model(config, {.compute = at::kBFloat16});
  initialise_parameters(config, *model.arena, 3);
  model.arena->enable_gradient();
  const DecoderInput input{.token_BT = at::arange(tokens).view({2, -1}),
                           .position_BT = at::arange(tokens / 2).repeat({2, 1}),
                           .document_BT = {}};
  (void)decoder_hidden(model, input, {}, {}, recompute);  // what is made once, is made
  const LiveBytes live;
  const int64_t before = live.now();
  const at::Tensor hidden_ND = decoder_hidden(model, input, {}, {}, recompute);
  return live.now() - before - static_cast<int64_t>(hidden_ND.nbytes());
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("device_cost: what is kept for the backward pass is what a rehearsal keeps") {
    constexpr int64_t kTokens = 64;
    ModelConfig config = preset("test", "t");
    config.num_attention_heads = 4, config.num_key_value_heads = 2;
    config.intermediate_size = {96, 64};
    ModelConfig plain = config;
    plain.qk_norm = false, plain.qkv_bias = true;
    for (const ModelConfig& one : {config, plain})
      for (const Recompute recompute :
           {Recompute::none, Recompute::elementwise, Recompute::gate_up, Recompute::layer}) {
        INFO("again: " << recompute_name(recompute) << (one.qk_norm ? "" : ", without QK-norm"));
        CHECK(static_cast<double>(bytes_left(one, kTokens, recompute)) ==
              doctest::Approx(kTokens * kept_bytes_per_token(one, recompute)).epsilon(0.01));
      }
  }

  TEST_CASE("device_cost: what is kept for the backward pass, and the state, of the published shapes") {
    const ModelConfig student = preset("afm-3b", ""), source = preset("afm-3b-source-23296", "");
    CHECK(kept_bytes_per_token(student, Recompute::none) == doctest::Approx(2.54e6).epsilon(0.005));
    CHECK(kept_bytes_per_token(source, Recompute::none) == doctest::Approx(4.91e6).epsilon(0.005));
    CHECK(kept_bytes_per_token(student, Recompute::elementwise) == doctest::Approx(1.80e6).epsilon(0.005));
    CHECK(kept_bytes_per_token(source, Recompute::elementwise) == doctest::Approx(3.38e6).epsilon(0.005));
    for (const ModelConfig& config : {student, source}) {  // which do not differ but for the FFN
      CHECK(kept_bytes_per_token(config, Recompute::gate_up) == doctest::Approx(0.96e6).epsilon(0.01));
      CHECK(kept_bytes_per_token(config, Recompute::layer) == 27 * (2 * 3072 + 4));
    }

    const ModelWork work = training_of("afm-3b");
    const auto parameters = static_cast<double>(count_parameters(student));
    const DeviceMemory whole = training_memory(work, {.micro_rows = 2});
    CHECK(whole.state == 18 * parameters);
    CHECK(training_memory(work, {.micro_rows = 2, .split_master = true}).state == 16 * parameters);
    CHECK(whole.activations == 8192 * kept_bytes_per_token(student, Recompute::none));
    CHECK(whole.logits == 256.0 * 1024 * 1024);
    CHECK(whole.total() == whole.state + whole.activations + whole.buffers + whole.logits + whole.workspace);
    CHECK(reading_memory(work).state == 6 * parameters);
    ModelWork distilled = work;
    distilled.loss = Kernel::kl_rows;  // the teacher's logits beside the student's
    CHECK(training_memory(distilled, {.micro_rows = 2}).logits == 2 * whole.logits);
  }

  TEST_CASE("device_cost: the step's parts on an H200") {
    const StepTime student = step_time(training_of("afm-3b"), {.micro_rows = 2}, device("h200"), AttentionMode::fast),
                   source = step_time(training_of("afm-3b-source-23296"), {.micro_rows = 2}, device("h200"),
                                      AttentionMode::fast);
    CHECK(student.products == doctest::Approx(1.434).epsilon(0.002));
    CHECK(source.products == doctest::Approx(3.347).epsilon(0.002));
    for (const StepTime& step : {student, source}) CHECK(step.attention == doctest::Approx(0.299).epsilon(0.002));
    CHECK(student.elementwise > 0.122);
    CHECK(student.elementwise < 0.128);
    CHECK(student.optimizer == doctest::Approx(0.0318).epsilon(0.005));
    CHECK(source.optimizer == doctest::Approx(0.0743).epsilon(0.005));
    CHECK(student.seconds() ==
          student.products + student.attention + student.elementwise + student.again + student.optimizer);

    // gate and up again: 4 D F L FLOPs a token, and passes over memory; a layer again: the forward pass without the
    // head and the layer's last product
    const auto again = [](Recompute recompute) {
      return step_time(training_of("afm-3b"), {.micro_rows = 2, .recompute = recompute}, device("h200"),
                       AttentionMode::fast)
          .again;
    };
    CHECK(again(Recompute::none) == 0);
    const double products = 65536 * 4.0 * 3072 * 8064 * 26 / (0.95 * 790e12);
    CHECK(again(Recompute::gate_up) > 1.15 * products);
    CHECK(again(Recompute::gate_up) < 1.22 * products);
    CHECK(again(Recompute::layer) == doctest::Approx(0.245 * student.seconds()).epsilon(0.03));
    CHECK(step_time(training_of("afm-3b"), {.micro_rows = 2}, device("h200"), AttentionMode::repeatable).attention >
          1.5 * student.attention);

    ModelWork apart = training_of("afm-3b");
    apart.documents = true;  // by flash, whatever is asked for
    CHECK(step_time(apart, {.micro_rows = 2}, device("h200"), AttentionMode::fast).attention ==
          step_time(apart, {.micro_rows = 2}, device("h200"), AttentionMode::repeatable).attention);

    // the host's launches are the least that a step of a small model takes
    ModelWork small = reading_work(preset("test", ""), 64, 0);
    small.steps = small.rows = 1;
    const StepTime step = step_time(small, {}, device("h200"), AttentionMode::fast);
    CHECK(step.launches > step.products + step.attention + step.elementwise + step.again);
    CHECK(step.seconds() == step.launches + step.optimizer);
  }

  TEST_CASE("plan_device: nothing twice and a whole master where they fit, and otherwise what costs the least time") {
    const DeviceStage source = planned(training_of("afm-3b-source"), "h200");
    REQUIRE(source.training);
    CHECK(source.fits);
    CHECK(source.training->recompute == Recompute::none);
    CHECK_FALSE(source.training->split_master);
    CHECK(source.memory.total() * 1.03 <= device("h200").bytes);
    CHECK(source.snapshot_bytes == 12.0 * static_cast<double>(count_parameters(preset("afm-3b-source", ""))));

    ModelWork longer = training_of("afm-3b");
    longer.seq_len = 28672;
    const DeviceStage narrow = planned(longer, "h100");
    REQUIRE(narrow.training);
    CHECK(narrow.fits);
    CHECK(narrow.training->micro_rows == 1);
    CHECK(narrow.training->recompute == Recompute::gate_up);
    CHECK(narrow.training->split_master);
    const DeviceStage roomy =
        planned(longer, "h200");  // what is no product costs less than a hundredth of long sequences
    CHECK(roomy.training->recompute == Recompute::elementwise);
    CHECK_FALSE(roomy.training->split_master);

    const StageCost cost{.name = "dense", .kind = "train", .work = {training_of("afm-3b-source")}};
    const DevicePlan none = plan_device({cost}, device("h100"));
    CHECK_FALSE(none.stages.front().fits);
    CHECK(none.stages.front().memory.state == doctest::Approx(98.4 * kGiB).epsilon(0.001));
    CHECK_THROWS_WITH(check_fits(none),
                      doctest::Contains("recompute layer and a split master: its parameters, gradient and optimizer"));
  }

  TEST_CASE(
      "plan_device: the recipe's own micro-batch and policy where they cost no time, and a word on them elsewhere") {
    const auto told = [](const ModelWork& work) {
      const StageCost cost{.name = "core", .kind = "train", .work = {work}};
      return device_table("afm", plan_device({cost}, device("h200")));
    };
    ModelWork own = training_of("afm-3b");
    own.micro_rows = 4;
    CHECK(planned(own, "h200").training->micro_rows == 4);
    CHECK(told(own).find("micro-batches: as the recipe has them") != std::string::npos);
    own.micro_rows = 0;  // the whole batch, which fits if gate and up are made again
    const DeviceStage slower = planned(own, "h200");
    CHECK(slower.own.fits);
    CHECK(slower.own.settings.recompute == Recompute::gate_up);
    CHECK(slower.own.times_as_long == doctest::Approx(2.154 / 1.887).epsilon(0.01));
    CHECK(slower.training->micro_rows < 16);
    CHECK(told(own).find("core: the recipe's micro-batch of 65536 tokens fits with recompute gate_up, and takes 1.14 "
                         "times as long; planned with micro_batch_tokens = 4096") != std::string::npos);
    own.rows = 64;
    CHECK(told(own).find("core: the recipe's micro-batch of 262144 tokens is too large; planned with") !=
          std::string::npos);
    own.recompute = Recompute::layer;
    CHECK(planned(own, "h200").training->recompute == Recompute::layer);
  }

  TEST_CASE("choose_training: the quickest that fits into what is free, with the recipe's micro-batch") {
    ModelWork work = training_of("afm-3b");
    work.micro_rows = 2;
    work.split_master = false;
    const StageCost cost{.name = "core", .kind = "train", .work = {work}};
    const auto chosen = [&](double gib) { return choose_training(cost, gib * kGiB); };
    const double state = 18 * work.parameters / kGiB;
    CHECK(chosen(139).settings.recompute == Recompute::none);
    CHECK(chosen(139).why.find("micro-batches of 8192 tokens take about") == 0);
    CHECK(chosen(state + 13).settings.recompute == Recompute::gate_up);
    CHECK(chosen(state + 6).settings.recompute == Recompute::layer);
    CHECK(chosen(state + 6).fits);
    CHECK(chosen(state + 6).why.find("that are free, up to") != std::string::npos);
    CHECK_FALSE(chosen(state).fits);
    CHECK(chosen(state).settings.recompute == Recompute::layer);
    CHECK(chosen(state).why.find("it may not fit, lower core.micro_batch_tokens") != std::string::npos);
  }

  TEST_CASE("choose_training: a split master where a whole one does not fit or costs more time, unless one is named") {
    ModelWork source = training_of("afm-3b-source");
    source.micro_rows = 1;
    StageCost cost{.name = "core", .kind = "train", .work = {source}};
    const double whole_bytes = training_memory(source, {.micro_rows = 1}).total() * 1.031;
    CHECK_FALSE(choose_training(cost, whole_bytes).settings.split_master);
    const TrainingChoice narrower = choose_training(cost, whole_bytes - 8 * kGiB);
    CHECK(narrower.settings.split_master);
    CHECK(narrower.settings.recompute == Recompute::none);
    CHECK(narrower.fits);
    cost.work.front().split_master = false;
    const TrainingChoice named = choose_training(cost, whole_bytes - 8 * kGiB);
    CHECK_FALSE(named.settings.split_master);
    CHECK(named.settings.recompute != Recompute::none);
    cost.work.front().split_master = true;
    CHECK(choose_training(cost, 200 * kGiB).settings.split_master);
    CHECK(plan_device({cost}, device("h200")).stages.front().training->split_master);  // a plan keeps to the key, too
    cost.work.front().split_master = {};
    StageCost beside_teacher = cost;
    beside_teacher.work.push_back(reading_work(preset("afm-3b", ""), 4096, 0));
    CHECK(choose_training(beside_teacher, whole_bytes).settings.split_master);
  }

  TEST_CASE("plan_device: a live teacher lies beside the student, models that are scored follow each other") {
    const ModelWork student = training_of("afm-3b"), teacher = reading_work(preset("afm-3b-source", ""), 4096, 655'360);
    const StageCost alone{.name = "core", .kind = "train", .work = {student}},
        taught{.name = "taught", .kind = "train", .work = {student, teacher}},
        scores{.name = "scores", .kind = "evaluate", .work = {teacher, teacher}, .one_model_at_once = true},
        both{.name = "both", .kind = "prune", .work = {teacher, teacher}}, nothing{.name = "data", .kind = "data"};
    const DevicePlan plan = plan_device({nothing, alone, taught, scores, both, alone}, device("h200"));
    REQUIRE(plan.stages.size() == 4);  // without what needs no device, and equal work once
    CHECK(plan.stages[0].times == 2);
    CHECK(plan.stages[1].memory.state == plan.stages[0].memory.state + 6 * teacher.parameters);
    CHECK(plan.stages[1].seconds > plan.stages[0].seconds);
    CHECK(plan.stages[1].snapshot_bytes == plan.stages[0].snapshot_bytes);
    CHECK(plan.stages[2].memory.state == 6 * teacher.parameters);
    CHECK(plan.stages[2].snapshot_bytes == 0);
    CHECK(plan.stages[3].memory.state == 12 * teacher.parameters);
    StageCost refitted = both;
    refitted.device_bytes = 17e9;  // moments of a wide cut
    const DevicePlan wide = plan_device({both, refitted}, device("h200"));
    REQUIRE(wide.stages.size() == 2);
    CHECK(wide.stages[1].memory.total() == wide.stages[0].memory.total() + 17e9);
    CHECK(plan.stages[2].seconds == doctest::Approx(plan.stages[3].seconds));
  }

  TEST_CASE("placed_cost: a device that is here has the memory that it has; stages on the CPU are the host's") {
    const CudaDevice h200{.name = "NVIDIA H200", .bytes = 150e9}, toy{.name = "NVIDIA Toy", .bytes = 2e9};
    CHECK(row_of(h200).bytes == 150e9);
    CHECK(std::string(row_of(h200).title) == "NVIDIA H200");
    CHECK(row_of(h200).gemm_flops == device("h200").gemm_flops);
    const StageCost dense{.name = "dense", .kind = "train", .work = {training_of("afm-3b-source")}};
    CHECK_NOTHROW(check_fits(plan_device({dense}, row_of(h200))));
    CHECK_THROWS_WITH(check_fits(plan_device({dense}, row_of(toy))),
                      doctest::Contains("of the 1.9 GiB on one NVIDIA Toy, with"));

    Recipe recipe = load_recipe((source_folder() / "tests/recipes/small.toml").string(), {}, {});
    const RecipeCost by_cpu = estimate_cost(recipe, 250'000, 100), placed = placed_cost(recipe, by_cpu);
    CHECK(placed.memory_bytes == by_cpu.memory_bytes);
    for (size_t i = 0; i < by_cpu.stages.size(); ++i) {
      CHECK(placed.stages[i].memory_bytes == by_cpu.stages[i].memory_bytes);
      CHECK(placed.stages[i].seconds == by_cpu.stages[i].seconds);
      CHECK(by_cpu.stages[i].host_bytes <= by_cpu.stages[i].memory_bytes);
    }
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("placed_cost: of a stage on a device the host holds little, and what it takes is the device's") {
    if (const std::string why = why_not_here(at::Device(at::kCUDA, 0)); !why.empty()) {
      MESSAGE("skipped: " << why);
      CHECK(!why.empty());
      return;
    }
    const Recipe recipe =
        load_recipe((source_folder() / "tests/recipes/small.toml").string(), {{"device", "\"cuda\"", ""}}, {});
    StageCost cost{.name = "dense", .kind = "train", .memory_bytes = 1e12, .work = {training_of("afm-3b")}};
    CHECK(placed_cost(recipe.stage("dense"), cost).memory_bytes < 4e9);
    CHECK_NOTHROW(check_device_fits(recipe.stage("dense"), StageCost{.name = "dense", .kind = "train"}));
    cost.work.front().parameters = 1e12;
    CHECK_THROWS_WITH(check_device_fits(recipe.stage("dense"), cost), doctest::Contains("stage 'dense' needs about"));
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("plan --device: the full-size recipe fits one H200, its source no H100; other names are refused") {
    const Scratch scratch("plan_device");
    const std::string afm = std::string(COPPICE_SOURCE_DIR) + "/recipes/afm.toml";
    const Outcome h200 = run(scratch.path, {"plan", afm, "--device", "h200"});
    INFO(h200.out << h200.err);
    CHECK(h200.code == 0);
    for (const char* word : {"predictions by formula, none of them measured", "6.60B", "micro-batch", "activations",
                             "of host", "139.0 GiB", "fastest attention", "disk: "})
      CHECK(h200.out.find(word) != std::string::npos);
    CHECK(h200.out.find("does not fit") == std::string::npos);
    const Outcome h100 = run(scratch.path, {"plan", afm, "--device", "h100"});
    CHECK(h100.code == 7);
    CHECK(h100.out.find("does not fit") != std::string::npos);
    CHECK(h100.err.find("stage 'dense' needs about") != std::string::npos);
    CHECK(h100.err.find("take a smaller model or a device with more memory") != std::string::npos);
    CHECK(run(scratch.path, {"plan", afm, "--device", "abacus"}).code == 2);
    const Outcome arms =
        run(scratch.path, {"plan", (source_folder() / "recipes/masks_gpu.toml").string(), "--device", "a100"});
    INFO(arms.out << arms.err);
    CHECK(arms.code == 0);
    CHECK(arms.out.find(" x") != std::string::npos);  // equal stages of arms and seeds are one line
  }
}
