// Predictions for devices against figures worked out by hand for the published shapes, and what `coppice plan --device`
// chooses, prints and refuses.
#include "recipes/run/device_plan.h"

#include <doctest/doctest.h>

#include "src/model/parameters.h"
#include "tests/recipes/program.h"

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

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("device_cost: what is kept for the backward pass, and the state, of the published shapes") {
    const ModelConfig student = preset("afm-3b", ""), source = preset("afm-3b-source-23296", "");
    CHECK(kept_bytes_per_token(student, Recompute::none) == doctest::Approx(1.80e6).epsilon(0.005));
    CHECK(kept_bytes_per_token(source, Recompute::none) == doctest::Approx(3.38e6).epsilon(0.005));
    for (const ModelConfig& config : {student, source}) {  // which do not differ but for the FFN
      CHECK(kept_bytes_per_token(config, Recompute::gate_up) == doctest::Approx(0.96e6).epsilon(0.01));
      CHECK(kept_bytes_per_token(config, Recompute::layer) == 27 * 2 * 3072 + 4);
    }
    ModelConfig plain = student;  // v is kept, and q and k but once
    plain.qk_norm = false;
    CHECK(kept_bytes_per_token(student, Recompute::none) - kept_bytes_per_token(plain, Recompute::none) ==
          26 * 2 * (3072 + 1024));

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
    const StepTime student = step_time(training_of("afm-3b"), {.micro_rows = 2}, device("h200"), Attention::fast),
                   source = step_time(training_of("afm-3b-source-23296"), {.micro_rows = 2}, device("h200"),
                                      Attention::fast);
    CHECK(student.products == doctest::Approx(1.434).epsilon(0.002));
    CHECK(source.products == doctest::Approx(3.347).epsilon(0.002));
    for (const StepTime& step : {student, source}) CHECK(step.attention == doctest::Approx(0.299).epsilon(0.002));
    CHECK(student.elementwise > 0.129);
    CHECK(student.elementwise < 0.135);
    CHECK(student.optimizer == doctest::Approx(0.0318).epsilon(0.005));
    CHECK(source.optimizer == doctest::Approx(0.0743).epsilon(0.005));
    CHECK(student.seconds() ==
          student.products + student.attention + student.elementwise + student.again + student.optimizer);

    // gate and up again: 4 D F L FLOPs a token; a layer again: the forward pass without the head
    const auto again = [](Recompute recompute) {
      return step_time(training_of("afm-3b"), {.micro_rows = 2, .recompute = recompute}, device("h200"),
                       Attention::fast)
          .again;
    };
    CHECK(again(Recompute::gate_up) - again(Recompute::none) ==
          doctest::Approx(65536 * 4.0 * 3072 * 8064 * 26 / (0.95 * 790e12)).epsilon(1e-6));
    CHECK(again(Recompute::layer) == doctest::Approx(0.3 * student.seconds()).epsilon(0.1));
    CHECK(step_time(training_of("afm-3b"), {.micro_rows = 2}, device("h200"), Attention::repeatable).attention >
          1.5 * student.attention);

    // the host's launches are the least that a step of a small model takes
    ModelWork small = reading_work(preset("test", ""), 64, 0);
    small.steps = small.rows = 1;
    const StepTime step = step_time(small, {}, device("h200"), Attention::fast);
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

    ModelWork longer = training_of("afm-3b");
    longer.seq_len = 32768;
    const DeviceStage narrow = planned(longer, "h100");
    REQUIRE(narrow.training);
    CHECK(narrow.fits);
    CHECK(narrow.training->micro_rows == 1);
    CHECK(narrow.training->recompute == Recompute::gate_up);
    CHECK(narrow.training->split_master);
    CHECK(planned(longer, "h200").training->recompute == Recompute::none);

    const StageCost cost{.name = "dense", .kind = "train", .work = {training_of("afm-3b-source")}};
    const DevicePlan none = plan_device({cost}, device("h100"));
    CHECK_FALSE(none.stages.front().fits);
    CHECK(none.stages.front().memory.state == doctest::Approx(98.4 * kGiB).epsilon(0.001));
    CHECK_THROWS_WITH(check_fits(none),
                      doctest::Contains("recompute layer and a split master: its parameters, gradient and optimizer"));
  }

  TEST_CASE("needs_split_master: where a whole one does not fit beside what the stage holds") {
    const ModelWork source = training_of("afm-3b-source"), student = training_of("afm-3b");
    const double h200 = device("h200").bytes;
    StageCost cost{.name = "core", .kind = "train", .work = {source}};
    CHECK_FALSE(needs_split_master(cost, 1, h200));
    CHECK(needs_split_master(cost, 2, h200));
    CHECK(training_memory(source, {.micro_rows = 2, .split_master = true}).total() < h200);
    cost.work = {student};
    CHECK_FALSE(needs_split_master(cost, 2, h200));
    CHECK(needs_split_master(cost, 2, training_memory(student, {.micro_rows = 2}).total()));  // with nothing to spare
    const double both = training_memory(student, {.micro_rows = 2}).total() + 20 * kGiB;
    CHECK_FALSE(needs_split_master(cost, 2, both));
    cost.work.push_back(reading_work(preset("afm-3b-source", ""), 4096, 0));
    CHECK(needs_split_master(cost, 2, both));
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
    CHECK(plan.stages[2].memory.state == 6 * teacher.parameters);
    CHECK(plan.stages[3].memory.state == 12 * teacher.parameters);
    CHECK(plan.stages[2].seconds == doctest::Approx(plan.stages[3].seconds));
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
                             "139.0 GiB", "fastest attention", "disk: "})
      CHECK(h200.out.find(word) != std::string::npos);
    CHECK(h200.out.find("does not fit") == std::string::npos);
    const Outcome h100 = run(scratch.path, {"plan", afm, "--device", "h100"});
    CHECK(h100.code == 7);
    CHECK(h100.out.find("does not fit") != std::string::npos);
    CHECK(h100.err.find("stage 'dense' needs about") != std::string::npos);
    CHECK(h100.err.find("take a smaller model or a device with more memory") != std::string::npos);
    CHECK(run(scratch.path, {"plan", afm, "--device", "abacus"}).code == 2);
    const Outcome arms = run(scratch.path, {"plan", COPPICE_SOURCE_DIR "/recipes/masks_gpu.toml", "--device", "a100"});
    INFO(arms.out << arms.err);
    CHECK(arms.code == 0);
    CHECK(arms.out.find(" x") != std::string::npos);  // equal stages of arms and seeds are one line
  }
}
