// Every option that reaches a device, in one recipe (device.toml): on the CPU, where the recipe is held to have them
// all; and on a device, where its losses are those of the CPU but for rounding and a run leaves the same bytes twice.
#include "tests/recipes/given_model.h"  // before any CHECK

#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "pruning/mask_methods.h"
#include "pruning/scores.h"
#include "recipes/stages/cut_target.h"
#include "recipes/stages/label.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/prune.h"
#include "recipes/stages/train.h"
#include "src/model/parameters.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"

using namespace coppice::test;

namespace {

/// device.toml with what it reads: two models from elsewhere, one of ours and one of another family, with biases of q,
/// k and v, scaled RoPE, no QK-norm and a head of its own.
struct DeviceRun : Scratch {
  fs::path root = path / "runs/device";

  explicit DeviceRun(const std::string& name) : Scratch(name) {
    write_run(path, "device.toml");
    const coppice::Tokenizer tokenizer = train_tokenizer_on_prose(path / "own.model", path / "corpus");
    coppice::ModelConfig config{.vocab_size = 384,
                                .hidden_size = 64,
                                .num_hidden_layers = 2,
                                .num_attention_heads = 4,
                                .num_key_value_heads = 2,
                                .head_dim = 32,
                                .intermediate_size = {128, 128}};
    give("elsewhere", config, tokenizer);
    config.head_dim = 16;
    config.rope_theta = 10000;
    config.qk_norm = config.tie_word_embeddings = false;
    config.qkv_bias = true;
    config.rope_scaling = {
        .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 64};
    give("other", config, tokenizer);
  }

  Outcome run(const std::vector<std::string>& settings = {}) const {
    std::vector<std::string> words = {"run", "device.toml"};
    for (const std::string& setting : settings) words.insert(words.end(), {"--set", setting});
    return coppice::test::run(path, words);
  }

  nlohmann::json results(const std::string& stage) const {
    return nlohmann::json::parse(slurp(root / stage / "manifest.json")).at("results");
  }
  /// A stage's results, and the lines of its metrics where it takes steps.
  nlohmann::json numbers(const std::string& stage) const {
    nlohmann::json numbers = {{"results", results(stage)}, {"steps", nlohmann::json::array()}};
    std::istringstream lines(slurp(root / stage / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) numbers["steps"].push_back(nlohmann::json::parse(line));
    return numbers;
  }

 private:
  void give(const char* folder, const coppice::ModelConfig& config, const coppice::Tokenizer& tokenizer) const {
    const coppice::Model model = coppice::make_model(config);
    coppice::initialise_parameters(config, *model.arena, 3);
    {
      const coppice::MasterEditor master = model.arena->edit_master();
      for (const coppice::Parameter& row : coppice::parameter_table(config))
        if (row.kind == coppice::ParameterKind::bias)
          master[row.name].copy_(at::linspace(-0.3, 0.3, row.shape.front()));
    }
    coppice::export_hf(path / folder, model, tokenizer, "f32");
  }
};

/// A number of a stage's results, and how far another run's may be off it.
struct Bounded {
  double value, most;
};

/// By their place in what DeviceRun::numbers() gives: losses and norms of gradients, relative to themselves, those of
/// one step with more room, as draws of a few tokens may be others; where nothing but float32 rounds shares of tokens,
/// too, of which a near tie may move a few.
std::map<std::string, Bounded> means_of(const nlohmann::json& numbers, bool in_fp32) {
  std::map<std::string, Bounded> means;
  const nlohmann::json flat = numbers.flatten();
  for (const auto& [place, value] : flat.items()) {
    const std::string key = place.substr(place.rfind('/') + 1);
    const double relative = in_fp32 ? 1e-4 : place.starts_with("/steps") ? 0.1 : 0.02;
    if (key.ends_with("loss") || key.starts_with("kd") || key == "ce" || key == "grad_norm" || key == "bits_per_byte")
      means[place] = {value.get<double>(), relative * std::fabs(value.get<double>())};
    else if (in_fp32 && (key.ends_with("accuracy") || key == "teacher_agreement"))
      means[place] = {value.get<double>(), 0.005};
  }
  return means;
}

void check_near(const DeviceRun& got, const DeviceRun& expected, bool in_fp32) {
  size_t compared = 0;
  for (const coppice::Stage& stage : coppice::load_recorded_recipe(expected.root).stages) {
    const auto means = means_of(got.numbers(stage.name), in_fp32);
    for (const auto& [place, wanted] : means_of(expected.numbers(stage.name), in_fp32)) {
      INFO(stage.name, place, ": expected ", wanted.value);
      REQUIRE(means.contains(place));
      CHECK(std::fabs(means.at(place).value - wanted.value) <= wanted.most);
      ++compared;
    }
  }
  CHECK(compared > 500);
}

/// Every file but those that hold times.
std::map<std::string, std::string> timeless_results(const DeviceRun& run) {
  auto results = results_of(run.root);
  std::erase_if(results, [](const auto& file) { return file.first.starts_with("speed/"); });
  return results;
}

std::set<std::string> wanted_cuts() {
  std::set<std::string> cuts;
  for (const std::string& axis : coppice::axis_names())
    for (const coppice::ScoreRow& row : coppice::score_table())
      if (coppice::scores_axis(row, coppice::axis_of(axis)) && (row.passes > 0 || axis == "ffn"))
        cuts.insert(axis + " by " + row.name);
  for (const std::string& axis : coppice::axis_names()) cuts.insert(axis + " refitted");
  for (const char* axis : {"heads", "layers", "hidden"}) cuts.insert(std::string(axis) + " by magnitude");
  for (const char* axis : {"ffn", "heads", "layers"}) cuts.insert(std::string(axis) + " by masks");
  return cuts;
}

std::set<std::string> wanted_masks() {
  std::set<std::string> masks = {
      "axis ffn",     "axis heads",    "axis layers", "form plain", "form top", "form plain_then_top",
      "budget layer", "budget global", "frozen",      "compact"};
  for (const coppice::MaskMethodRow& row : coppice::mask_method_table())
    masks.insert(std::string("method ") + row.name);
  return masks;
}

const std::set<std::string> kWantedLabels = {"top1",          "top1_prob",      "topk f16",     "topk q8",
                                             "sample",        "sample of many", "hybrid",       "weighted",
                                             "rule document", "rule aligned",   "covered used", "covered all"};
const std::set<std::string> kWantedLosses = {"stored labels",   "stored top_k",    "stored decoupled_top_k",
                                             "stored sample",   "stored hybrid",   "live labels",
                                             "live top_k",      "live sample",     "live decoupled_top_k",
                                             "live hybrid",     "live kl",         "live reverse_kl",
                                             "live jsd",        "live cosine",     "live mse",
                                             "stored weighted", "live weighted",   "stored several",
                                             "live several",    "adamw",           "adastar",
                                             "norms undecayed", "weight_schedule", "distil_from",
                                             "float_logits",    "documents",       "micro-batches",
                                             "rope_theta",      "recompute none",  "recompute elementwise",
                                             "recompute layer", "split master",    "recompute gate_up"};

/// What the stages of a recipe use of those.
struct Uses {
  std::set<std::string> cuts, masks, labels, losses;
};
Uses uses_of(const coppice::Recipe& recipe) {
  Uses uses;
  for (const coppice::Stage& stage : recipe.stages) {
    if (const auto* prune = stage.find<coppice::PruneStage>()) {
      uses.cuts.insert(prune->axis + " by " + prune->scores);
      if (prune->refit) uses.cuts.insert(prune->axis + " refitted");
    }
    if (const auto* learn = stage.find<coppice::LearnMasksStage>()) {
      uses.masks.insert({"axis " + learn->axis, "method " + learn->masks.mask_method, "form " + learn->masks.mask_form,
                         "budget " + learn->masks.budget});
      if (learn->masks.freeze_weights) uses.masks.insert("frozen");
      if (learn->masks.compact_after > 0) uses.masks.insert("compact");
    }
    if (const coppice::TrainingOptions* training = coppice::training_of(stage)) {
      uses.losses.insert("recompute " + (training->recompute == "auto" ? "none" : training->recompute));
      if (training->master == "split") uses.losses.insert("split master");
    }
    if (const auto* label = stage.find<coppice::LabelStage>()) {
      uses.labels.insert({label->tier == "topk" ? "topk " + label->code : label->tier, "rule " + label->window_rule,
                          "covered " + label->coverage});
      if (label->tier == "sample" && label->draws > 1) uses.labels.insert("sample of many");
      if (label->proposal_temperature > 1) uses.labels.insert("weighted");
    }
    const auto* train = stage.find<coppice::TrainStage>();
    if (train == nullptr) continue;
    const coppice::KdOptions& kd = train->distillation;
    const std::string how = train->labels.empty() ? "live " : "stored ";
    if (train->has_teacher()) uses.losses.insert(how + kd.loss);
    if (kd.hidden_loss != "none") uses.losses.insert(how + kd.hidden_loss);
    if (train->teacher_shares.size() > 1) uses.losses.insert(how + "several");
    if (train->proposal_temperature > 1) uses.losses.insert("live weighted");
    for (const std::string& labels : train->labels)
      if (recipe.stage(labels).get<coppice::LabelStage>().proposal_temperature > 1)
        uses.losses.insert("stored weighted");
    if (kd.teacher_weight_end >= 0) uses.losses.insert("weight_schedule");
    if (kd.distil_from > 0) uses.losses.insert("distil_from");
    uses.losses.insert(train->training.optimizer.optimizer);
    if (!train->training.optimizer.decay_norms) uses.losses.insert("norms undecayed");
    if (train->training.float_logits) uses.losses.insert("float_logits");
    if (train->training.document_mask) uses.losses.insert("documents");
    if (train->training.rows() % train->training.micro_rows() != 0) uses.losses.insert("micro-batches");
    if (train->rope_theta > 0) uses.losses.insert("rope_theta");
    CHECK(train->training.steps() <= 2);
  }
  return uses;
}

void check_has_all(const std::set<std::string>& used, const std::set<std::string>& wanted) {
  for (const std::string& one : wanted) CHECK_MESSAGE(used.contains(one), one);
}

/// The run on the CPU that those on a device are held to; made once.
const DeviceRun& on_cpu() {
  static const DeviceRun run("device_cpu");
  static const Outcome outcome = run.run();
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  return run;
}

/// A run on the first device, near the one on the CPU.
void run_on_device(const DeviceRun& run, const std::string& compute, const std::string& attention) {
  const Outcome outcome =
      run.run({"device=\"cuda\"", "compute=\"" + compute + "\"", "attention=\"" + attention + "\""});
  INFO(outcome.err);
  REQUIRE(outcome.code == 0);
  check_near(run, on_cpu(), compute == "fp32");
}

void check_repeats(const std::string& compute) {
  const DeviceRun once("device_once"), twice("device_twice");
  run_on_device(once, compute, "repeatable");
  run_on_device(twice, compute, "repeatable");
  const auto results = timeless_results(twice), wanted = timeless_results(once);
  CHECK(results.size() == wanted.size());
  for (const auto& [name, bytes] : wanted) CHECK_MESSAGE((results.contains(name) && results.at(name) == bytes), name);
}

bool is_missing() {
  const std::string why = coppice::why_not_here(at::Device(at::kCUDA, 0));
  if (!why.empty()) MESSAGE("skipped: " << why);
  CHECK((why.empty() == (coppice::num_cuda_devices() > 0)));
  return !why.empty();
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("device: a recipe of every option that reaches one, on the CPU") {
    const Uses uses = uses_of(coppice::load_recorded_recipe(on_cpu().root));
    check_has_all(uses.cuts, wanted_cuts());
    check_has_all(uses.masks, wanted_masks());
    check_has_all(uses.labels, kWantedLabels);
    check_has_all(uses.losses, kWantedLosses);
    check_near(on_cpu(), on_cpu(), /*in_fp32=*/true);  // its losses are there, and they are numbers
    CHECK(on_cpu().numbers("masks_compact")["steps"].back()["ffn_width"].get<double>() <
          128);  // dead channels left the model
    CHECK(on_cpu().results("speed")["models"][0].contains("speed"));
    CHECK(on_cpu().results("biased_release").contains("gguf"));
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("device: every option that reaches one gives what the CPU gives, and the same bytes twice, in float32") {
    if (!is_missing()) check_repeats("fp32");
  }
  TEST_CASE("device: every option that reaches one gives what the CPU gives, and the same bytes twice, in bfloat16") {
    if (!is_missing()) check_repeats("bf16");
  }
  TEST_CASE("device: with the attention that does not repeat every option gives what the CPU gives, too") {
    if (is_missing()) return;
    const DeviceRun run("device_fast");
    run_on_device(run, "bf16", "fast");
  }
}
