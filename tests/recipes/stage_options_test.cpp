// Every option of every stage kind, walked: an option that decides is part of the stage's identity and changes what
// comes out, one of another mark is not and changes no weight, and none is read by nobody. Each row is a stage of its
// own in one recipe, beside the stage that it differs from in that one key; each trains for two steps.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "pruning/mask_file.h"
#include "recipes/language/recipe.h"
#include "recipes/language/training_options.h"
#include "recipes/stages/stages.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

constexpr const char* kHead = R"(
name = "options"
device = "cpu"
threads = 1
[data]
heldout_share = 0.08
tuning_share = 0.1
shard_tokens = 65536
[[data.domain]]
name = "prose"
path = "corpus/prose.jsonl"
[[data.domain]]
name = "code"
path = "corpus/code.jsonl"
[tokenizer]
vocab_size = 384
training_bytes = 60000
[model.source]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 64
[model.source_again]
[model.student]
intermediate_size = 24
[model.student_again]
intermediate_size = 24
[model.narrow]
intermediate_size = 16
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 4096
seq_len = 64
batch_tokens = 512
[[stage]]
name = "dense_again"
kind = "train"
model = "source"
tokens = 4096
seq_len = 64
batch_tokens = 512
[[stage]]
name = "other"
kind = "train"
model = "source"
seed = 5
tokens = 4096
seq_len = 64
batch_tokens = 512
[[stage]]
name = "labels"
kind = "label"
teacher = "dense"
context = 64
[[stage]]
name = "labels_again"
kind = "label"
teacher = "other"
context = 64
[[stage]]
name = "labels_topk"
kind = "label"
teacher = "dense"
context = 64
tier = "topk"
top_k = 8
)";

/// The keys that a plain stage of each kind has; a row's own come over them.
const std::map<std::string, std::map<std::string, std::string>> kPlain = {
    {"train",
     {{"from", "\"dense\""},
      {"tokens", "256"},
      {"seq_len", "64"},
      {"batch_tokens", "128"},
      {"eval_tokens", "512"},
      {"warmup_steps", "0"}}},
    {"learn_masks",
     {{"from", "\"dense\""},
      {"tokens", "256"},
      {"seq_len", "64"},
      {"batch_tokens", "128"},
      {"eval_tokens", "512"},
      {"warmup_steps", "0"},
      {"calibration_tokens", "512"},
      {"on_collapse", "\"warn\""}}},
    {"prune", {{"from", "\"dense\""}, {"scores", "\"activation\""}, {"calibration_tokens", "2048"}}},
    {"label", {{"teacher", "\"dense\""}, {"context", "64"}}},
    {"evaluate", {{"of", "[\"dense\"]"}, {"seq_len", "64"}, {"tokens", "2048"}}},
    {"export", {{"from", "\"dense\""}}},
};

using Keys = std::map<std::string, std::string>;

struct Row {
  const char* kind;
  const char* key;
  const char* value;           // TOML; nullptr: not run here, see `why`
  Keys with = {};              // keys of both stages, where the option acts in company alone; "" takes a plain key away
  const char* twin = nullptr;  // of a place: the same thing under another name
  const char* why = "";        // of a key that is not run here: the test that shows it at work
};

const Keys kDistils = {{"labels", "\"labels\""}}, kLive = {{"teacher", "\"other\""}, {"loss", "\"kl\""}},
           kTwo = {{"labels", "[\"labels\", \"labels_again\"]"}},
           kDescent = {{"mask_method", "\"coordinate_descent\""}}, kGates = {{"mask_method", "\"hard_concrete\""}};
Keys operator+(Keys keys, const Keys& more) {
  for (const auto& [key, value] : more) keys[key] = value;
  return keys;
}

const std::vector<Row>& rows() {
  static const std::vector<Row> kRows = [] {
    std::vector<Row> rows = {
        {"train", "model", "\"narrow\"", {{"from", ""}, {"model", "\"source\""}}, "\"source_again\""},
        {"train", "from", "\"other\"", {}, "\"dense_again\""},
        {"train", "labels", "\"labels_again\"", kDistils},
        {"train", "teacher", "\"dense_again\"", kLive},
        {"train", "teacher_shares", "[3, 1]", kTwo},
        {"train", "top_k", "4", {{"teacher", "\"other\""}, {"loss", "\"top_k\""}}},
        {"train", "draws", "4", {{"teacher", "\"other\""}, {"loss", "\"sample\""}}},
        {"train", "proposal_temperature", "1.3", {{"teacher", "\"other\""}, {"loss", "\"sample\""}}},
        {"train", "loss", "\"jsd\"", kLive},
        {"train", "teacher_weight", "0.5", kDistils},
        {"train", "teacher_weight_end", "0.1", kDistils},
        {"train", "kd_temperature", "2.0", kLive},
        {"train", "jsd_beta", "0.2", kLive + Keys{{"loss", "\"jsd\""}}},
        {"train", "distil_from", "0.5", kDistils},
        {"train", "distil_to", "0.5", kDistils},
        {"train", "hidden_loss", "\"mse\"", kLive + Keys{{"hidden_loss", "\"cosine\""}}},
        {"train", "hidden_weight", "3.0", kLive + Keys{{"hidden_loss", "\"cosine\""}}},
        {"train", "hidden_layers", "[1]", kLive + Keys{{"hidden_loss", "\"cosine\""}}},
        {"train", "rope_theta", "1e6"},
        {"learn_masks", "from", "\"other\"", {}, "\"dense_again\""},
        {"learn_masks", "target", "\"narrow\"", {}, "\"student_again\""},
        {"learn_masks", "axis", "\"heads\"", {{"target", "\"source\""}}},
        {"learn_masks", "mask_method", "\"straight_through\""},
        {"learn_masks", "score_lr", "0.01"},
        {"learn_masks", "score_init", "\"magnitude\""},
        {"learn_masks", "score_init_std", "0.3", {{"score_init", "\"noise\""}}},
        {"learn_masks", "calibration_tokens", "4096"},
        {"learn_masks", "score_scale", "\"raw\""},
        {"learn_masks", "k_ramp", "0.8"},
        {"learn_masks", "top_k_epsilon", "0.5"},
        {"learn_masks", "final_top_k_epsilon", "0.01"},
        {"learn_masks", "anneal", "\"linear\""},
        {"learn_masks", "anneal_end", "0.6"},
        {"learn_masks", "mask_form", "\"top\""},
        {"learn_masks", "budget", "\"global\""},
        {"learn_masks", "round_to", "8", {{"budget", "\"global\""}}},
        {"learn_masks", "freeze_weights", "true"},
        {"learn_masks", "compact_after", "1"},
        {"learn_masks", "on_collapse", nullptr, {}, nullptr, "tests/recipes/masks_test.cpp"},
        {"learn_masks", "descent_rounds", "3", kDescent},
        {"learn_masks", "descent_scaled", "false", kDescent},
        {"learn_masks", "descent_start", "\"minus_s\"", kDescent + Keys{{"descent_rounds", "2"}}},
        {"learn_masks", "hard_concrete", "\"l0\"", kGates},
        {"learn_masks", "gate_lr", "0.1", kGates},
        {"learn_masks", "multiplier_lr", "0.1", kGates},
        {"prune", "from", "\"other\"", {}, "\"dense_again\""},
        {"prune", "target", "\"narrow\"", {}, "\"student_again\""},
        {"prune", "axis", "\"heads\"", {{"target", "\"source\""}}},
        {"prune", "scores", "\"magnitude\""},
        {"prune", "calibration_tokens", "16384"},
        {"prune", "refit", "true"},
        {"prune", "refit_damping", "0.3", {{"refit", "true"}}},
        {"prune", "seed", "9", {{"scores", "\"random\""}}},
        {"label", "teacher", "\"other\"", {}, "\"dense_again\""},
        {"label", "import", nullptr, {}, nullptr, "tests/recipes/labels_test.cpp"},
        {"label", "import_format", nullptr, {}, nullptr, "tests/recipes/labels_test.cpp"},
        {"label", "low_mass", nullptr, {}, nullptr, "tests/data/label_import_test.cpp"},
        {"label", "import_teacher", nullptr, {}, nullptr, "tests/recipes/labels_test.cpp"},
        {"label", "cache", nullptr, {}, nullptr, "tests/recipes/labels_test.cpp"},
        {"label", "window_rule", "\"aligned\""},
        {"label", "coverage", "\"used\""},
        {"label", "context", "32"},
        {"label", "overlap", "40"},
        {"label", "batch_tokens", "256"},
        {"label", "tier", "\"top1_prob\""},
        {"label", "top_k", "3", {{"tier", "\"topk\""}}},
        {"label", "code", "\"q8\"", {{"tier", "\"topk\""}}},
        {"label", "draws", "3", {{"tier", "\"sample\""}}},
        {"label", "draw_seed", "9", {{"tier", "\"hybrid\""}}},
        {"label", "temperature", "2.0", {{"tier", "\"topk\""}}},
        {"label", "proposal_temperature", "1.3", {{"tier", "\"sample\""}}},
        {"evaluate", "of", "[\"dense\", \"other\"]"},
        {"evaluate", "teacher", "\"other\""},
        {"evaluate", "seq_len", "32"},
        {"evaluate", "split", "\"tuning\""},
        {"evaluate", "tokens", "1024"},
        {"evaluate", "batch_tokens", "256"},
        {"evaluate", "tasks", "\"tasks/words.jsonl\""},
        {"evaluate", "speed_tokens", "4"},
        {"export", "from", "\"other\"", {}, "\"dense_again\""},
        {"export", "formats", "[\"hf\", \"gguf\"]"},
        {"export", "quantization", "\"q8_0\"", {{"formats", "\"gguf\""}}},
        {"export", "dtype", "\"bf16\""},
        {"import", "path", nullptr, {}, nullptr, "tests/recipes/import_test.cpp"},
    };
    for (const char* kind : {"train", "learn_masks", "prune", "label", "evaluate"}) {
      rows.push_back({kind, "device", "\"cpu\""});
      rows.push_back({kind, "compute", "\"fp32\""});
      rows.push_back({kind, "attention", "\"fast\""});
    }
    for (const char* kind : {"train", "learn_masks"}) {
      const Keys four = {{"tokens", "512"}, {"keep_finished", "true"}, {"checkpoint_steps", "1"}};
      const std::vector<Row> of_both = {
          {kind, "tokens", "384"},
          {kind, "optimizer", "\"adamw\""},
          {kind, "seq_len", "32"},
          {kind, "batch_tokens", "64"},
          {kind, "micro_batch_tokens", "64"},
          {kind,
           "document_mask",
           "true",
           {{"tokens", "2048"}, {"batch_tokens", "1024"}}},  // enough to meet a document's end
          {kind, "data_seed", "9"},
          {kind, "seed", "9"},
          {kind, "eval_steps", "2"},
          {kind, "eval_tokens", "1024"},
          {kind, "eval_split", "\"tuning\""},
          {kind, "checkpoint_steps", "2", {{"tokens", "512"}, {"keep_finished", "true"}, {"checkpoint_steps", "1"}}},
          {kind, "keep_last", "3", four},
          {kind, "keep_finished", "true"},
          {kind, "max_skipped_steps", nullptr, {}, nullptr, "tests/recipes/stops_test.cpp"},
          {kind, "z_loss", "0.1"},
          {kind, "float_logits", "true"},
          {kind, "recompute", "\"layer\""},
          {kind, "master", "\"split\""},
          {kind, "lr", "0.002"},
          {kind, "weight_decay", "0.1"},
          {kind, "beta_1", "0.5"},
          {kind, "beta_2", "0.5"},
          {kind, "max_grad_norm", "0.01"},
          {kind, "drop_grad_norm", "0.01"},
          {kind, "warmup_steps", "2"},
          {kind, "final_lr_ratio", "0.9", {{"tokens", "384"}}},
          {kind, "decay_norms", "false", {{"weight_decay", "0.1"}}},
      };
      rows.insert(rows.end(), of_both.begin(), of_both.end());
    }
    return rows;
  }();
  return kRows;
}

std::string stage_text(const std::string& name, const std::string& kind, const Keys& keys) {
  std::string text = "[[stage]]\nname = \"" + name + "\"\nkind = \"" + kind + "\"\n";
  for (const auto& [key, value] : keys)
    if (!value.empty()) text += key + " = " + value + "\n";
  return text;
}

Mark mark_of(const Row& row) {
  if (std::string(row.key) == "seed") return Mark::decides;  // of the stage, not of its kind
  for (const StageKind* kind : stage_kinds())
    if (std::string(row.kind) == kind->kind)
      for (const OptionLine& line : options_of(*kind))
        if (line.key == row.key) return line.mark;
  FAIL("no option " << row.key << " of " << row.kind);
  return Mark::decides;
}

/// The stages of one row: what it differs from, itself, and its twin.
struct Stages {
  const Row* row;
  std::string plain, changed, twin;
};

/// One recipe with the stages of every row; equal plain ones once.
std::string recipe_of_rows(std::vector<Stages>& stages) {
  std::string text = kHead;
  std::map<std::string, std::string> plain;  // text without name -> name
  for (const Row& row : rows()) {
    if (row.value == nullptr) continue;
    const std::string number = std::to_string(stages.size());
    Keys keys = kPlain.at(row.kind) + row.with;
    const std::string as_plain = stage_text("", row.kind, keys);
    if (!plain.contains(as_plain)) {
      plain[as_plain] = "plain-" + number;
      text += stage_text("plain-" + number, row.kind, keys);
    }
    keys[row.key] = row.value;
    text += stage_text("changed-" + number, row.kind, keys);
    if (row.twin != nullptr) {
      keys[row.key] = row.twin;
      text += stage_text("twin-" + number, row.kind, keys);
    }
    stages.push_back({.row = &row,
                      .plain = plain[as_plain],
                      .changed = "changed-" + number,
                      .twin = row.twin != nullptr ? "twin-" + number : ""});
  }
  return text;
}

/// What a stage left, but for the clock and for its own name and fingerprint: the values of its files, and their names.
std::string result_of(const fs::path& stage) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(stage)) {
    const std::string name = entry.path().lexically_relative(stage).generic_string();
    files[name] = "";
    const std::string ending = entry.path().extension();
    if (ending == ".h5" || ending == ".safetensors" || ending == ".json")
      if (entry.path().filename() != "manifest.json" && name != "identity.json") files[name] = slurp(entry.path());
    if (name == "metrics.jsonl") files[name] = without_clock(slurp(entry.path()));
  }
  std::string text = nlohmann::json::parse(slurp(stage / "manifest.json"))["results"].dump();
  for (const auto& [name, content] : files) text += name + "\n" + content + "\n";
  return text;
}

/// The numbers that others go on from: weights, masks, labels.
std::string weights_of(const fs::path& stage) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(stage)) {
    const std::string name = entry.path().lexically_relative(stage).generic_string();
    if (name.find("ckpt") != std::string::npos) continue;
    if (name == "masks.h5") {  // which names the model that it belongs to
      const MaskFile masks = load_masks(entry.path());
      for (const at::Tensor& tensor_LF : {masks.scores_LF, masks.soft_LF}) {
        const at::Tensor whole_LF = tensor_LF.contiguous();
        files[name].append(static_cast<const char*>(whole_LF.const_data_ptr()), whole_LF.nbytes());
      }
    } else if (name.ends_with(".h5") || name.ends_with(".safetensors")) {
      files[name] = slurp(entry.path());
    }
  }
  std::string text;
  for (const auto& [name, content] : files) text += name + "\n" + content + "\n";
  return text;
}

/// Loss of the last step, to compare what differs by rounding alone.
double last_loss(const fs::path& stage) {
  std::istringstream lines(slurp(stage / "metrics.jsonl"));
  double loss = 0;
  for (std::string line; std::getline(lines, line);) loss = nlohmann::json::parse(line)["loss"].get<double>();
  return loss;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("options: every option of every stage kind has a row") {
    std::set<std::pair<std::string, std::string>> named;
    for (const Row& row : rows()) {
      CHECK_MESSAGE(named.insert({row.kind, row.key}).second, row.kind << "." << row.key << " twice");
      if (*row.why != '\0')
        CHECK_MESSAGE(slurp(fs::path(COPPICE_SOURCE_DIR) / row.why).find(row.key) != std::string::npos,
                      row.why << " does not know " << row.key);
    }
    size_t num_options = 0;
    for (const StageKind* kind : stage_kinds())
      for (const OptionLine& line : options_of(*kind)) {
        ++num_options;
        CHECK_MESSAGE(named.contains({kind->kind, line.key}), kind->kind << "." << line.key << " has no row");
      }
    CHECK(num_options > 90);  // the walk saw them
  }

  TEST_CASE("options: what decides is in the identity, and nothing else") {
    const Scratch scratch("stage_options");
    write_corpus(scratch.path / "corpus");
    write_tasks(scratch.path);
    std::vector<Stages> stages;
    spill(scratch.path / "options.toml", recipe_of_rows(stages));
    const Recipe recipe = load_recipe((scratch.path / "options.toml").string(), {}, {});
    const auto identity = [&](const std::string& name) {
      const Stage& stage = recipe.stage(name);
      Json json = kind_of(stage).identity(recipe, stage);
      if (kind_of(stage).seeded) json["seed"] = stage.seed;
      return json;
    };
    for (const Stages& one : stages) {
      const std::string key = std::string(one.row->kind) + "." + one.row->key;
      const bool kept =
          std::ranges::find(kAlsoInFingerprints, std::string_view(one.row->key)) != std::end(kAlsoInFingerprints) &&
          one.row->kind != std::string("label") && one.row->kind != std::string("evaluate");
      const Mark mark = mark_of(*one.row);
      // what these lead to is among the inputs, or hashed
      if (mark == Mark::place || key == "train.labels") continue;
      CHECK_MESSAGE((identity(one.plain) != identity(one.changed)) == (mark == Mark::decides || kept), key);
    }
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("options: every key acts, and only what decides changes a weight") {
    const Scratch scratch("every_key_acts");
    write_corpus(scratch.path / "corpus");
    write_tasks(scratch.path);
    std::vector<Stages> stages;
    spill(scratch.path / "options.toml", recipe_of_rows(stages));
    const Outcome outcome = run(scratch.path, {"--quiet", "run", "options.toml"});
    REQUIRE_MESSAGE(outcome.code == 0, outcome.err);
    const fs::path runs = scratch.path / "runs/options";
    for (const Stages& one : stages) {
      const std::string key = std::string(one.row->kind) + "." + one.row->key;
      const fs::path plain = runs / one.plain, changed = runs / one.changed;
      const Mark mark = mark_of(*one.row);
      if (mark == Mark::decides || mark == Mark::place)
        CHECK_MESSAGE(result_of(plain) != result_of(changed), key << " acts on nothing");
      if (mark == Mark::cadence) {
        CHECK_MESSAGE(result_of(plain) != result_of(changed), key << " acts on nothing");
        CHECK_MESSAGE(weights_of(plain) == weights_of(changed), key << " changes a weight");
      }
      if (mark == Mark::rounding && fs::exists(plain / "metrics.jsonl"))
        CHECK_MESSAGE(last_loss(changed) == doctest::Approx(last_loss(plain)).epsilon(1e-5), key);
      if (mark == Mark::rounding && !fs::exists(plain / "metrics.jsonl"))
        CHECK_MESSAGE(weights_of(plain) == weights_of(changed), key);
      if (!one.twin.empty())
        CHECK_MESSAGE(weights_of(plain) == weights_of(runs / one.twin), key << " is more than a name");
    }
  }
}
