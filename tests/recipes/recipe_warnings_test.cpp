// Settings that are legal and do not do what they look like: each is named with its numbers, once; ordinary recipes are
// silent.
#include "recipes/run/recipe_warnings.h"

#include <doctest/doctest.h>

#include "recipes/ablation/ablation.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const std::string kTiny = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/tiny.toml");

Recipe load(const std::string& text, const std::vector<std::string>& settings = {}) {
  const Scratch scratch("warnings");
  spill(scratch.path / "tiny.toml", text);
  std::vector<Override> overrides;
  for (const std::string& setting : settings)
    overrides.push_back({setting.substr(0, setting.find('=')), setting.substr(setting.find('=') + 1)});
  return load_recipe((scratch.path / "tiny.toml").string(), overrides, {});
}

size_t count_of(const std::vector<std::string>& lines, const std::string& part) {
  return static_cast<size_t>(
      std::ranges::count_if(lines, [&](const std::string& line) { return line.find(part) != std::string::npos; }));
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("recipe_warnings: an ordinary recipe is silent") {
    CHECK(recipe_warnings(load(kTiny)) == std::vector<std::string>{});
  }

  TEST_CASE("recipe_warnings: every matter is named with its numbers, and nothing else is") {
    // dense has 240 steps, masks and core 40, long 20
    const struct {
      std::vector<std::string> settings;
      std::string says;
    } cases[] = {
        {{"dense.warmup_steps=2000"},
         "stage 'dense': warmup_steps = 2000, and the stage has 240 steps: the warm-up takes all of them and ends at "
         "12% of lr"},
        {{"masks.warmup_steps=40"},
         "stage 'masks': warmup_steps = 40, and the stage has 40 steps: the warm-up takes all of them and ends at 100% "
         "of lr"},
        {{"core.checkpoint_steps=41"},
         "stage 'core': checkpoint_steps = 41, and the stage has 40 steps: a kill loses all of it"},
        {{"core.eval_steps=41"}, "stage 'core': eval_steps = 41, and the stage has 40 steps"},
        {{"core.eval_steps=4", "core.eval_tokens=0"},
         "stage 'core': eval_steps is set and has no effect with eval_tokens = 0"},
        {{"core.eval_split=\"tuning\"", "data.tuning_share=0.1", "core.eval_tokens=0"},
         "stage 'core': eval_split is set and has no effect with eval_tokens = 0"},
        {{"long.tokens=100", "long.checkpoint_steps=1"},
         "stage 'long': tokens = 100 is less than one step of batch_tokens = 512: it trains on 512"},
        {{"core.attention=\"fast\"", "core.device=\"cpu\""},
         "stage 'core': attention is set and has no effect without a CUDA device"},
        {{"core.compute=\"bf16\"", "core.device=\"cpu\""}, "compute = \"bf16\" on a CPU rehearses a run on a device"},
        {{"core.float_logits=true", "core.device=\"cpu\""},
         "stage 'core': float_logits is set and has no effect without compute = \"bf16\""},
        {{"core.master=\"split\"", "core.device=\"cpu\""},
         "stage 'core': master is set and has no effect without compute = \"bf16\""},
        {{"core.drop_grad_norm=0.5"},
         "stage 'core': max_grad_norm = 1 has no effect: steps from drop_grad_norm = 0.5 on are skipped"},
        {{"scratch.teacher_weight=0.5"},
         "stage 'scratch': teacher_weight is set and has no effect without `labels` or `teacher`"},
        {{"scratch.distil_to=0.5"}, "stage 'scratch': distil_to is set and has no effect without"},
        {{"core.jsd_beta=0.3"}, "stage 'core': jsd_beta is set and has no effect without loss = \"jsd\""},
        {{"core.top_k=8"},
         "stage 'core': top_k is set and has no effect without loss = \"top_k\", \"decoupled_top_k\" or \"hybrid\" and "
         "a live `teacher`"},
        {{"core.hidden_weight=2"}, "stage 'core': hidden_weight is set and has no effect without hidden_loss"},
        {{"core.distil_from=0.51", "core.distil_to=0.52"},
         "stage 'core': no step lies between distil_from = 0.51 and distil_to = 0.52 of its 40"},
        {{"core.distil_from=0.5", "core.distil_to=0.52", "core.teacher_weight_end=0.1"},
         "stage 'core': teacher_weight_end has no effect"},
        {{"labels.temperature=2"},
         "stage 'labels': temperature is set and has no effect without tier = \"top1_prob\", \"topk\", \"sample\" or "
         "\"hybrid\""},
        {{"labels.draws=8"}, "stage 'labels': draws is set and has no effect without tier = \"sample\""},
        {{"labels.draw_seed=8"}, "stage 'labels': draw_seed is set and has no effect without tier = \"sample\""},
        {{"labels.tier=\"sample\"", "core.loss=\"sample\"", "labels.batch_tokens=64"},
         "stage 'labels': batch_tokens is set and has no effect without another tier: sample and hybrid read each "
         "window alone"},
        {{"core.draws=8"},
         "stage 'core': draws is set and has no effect without loss = \"sample\" or \"hybrid\" and a live `teacher`"},
        {{"labels.proposal_temperature=1.5"},
         "stage 'labels': proposal_temperature is set and has no effect without tier = \"sample\""},
        {{"core.proposal_temperature=1.5"},
         "stage 'core': proposal_temperature is set and has no effect without loss = \"sample\" and a live `teacher`"},
        {{"labels.code=\"q8\""}, "stage 'labels': code is set and has no effect without tier = \"topk\""},
        {{"labels.top_k=8"}, "stage 'labels': top_k is set and has no effect without tier = \"topk\""},
        {{"core.labels=[]"}, "stage 'labels': no train stage names it in `labels`, so nothing learns from it"},
        {{"core.labels=[]", "labels.coverage=\"used\""}, "coverage = \"used\" labels nothing"},
        {{"labels.window_rule=\"aligned\"", "labels.context=32"},
         "stage 'core': the teacher of 'labels' reads windows of 32 tokens, this stage's are 64"},
        {{"masks.gate_lr=0.5"},
         "stage 'masks': gate_lr is set and has no effect without mask_method = \"hard_concrete\""},
        {{"masks.mask_method=\"hard_concrete\"", "masks.score_lr=0.5"},
         "stage 'masks': score_lr is set and has no effect without"},
        {{"masks.descent_rounds=5"},
         "stage 'masks': descent_rounds is set and has no effect without mask_method = \"coordinate_descent\""},
        {{"masks.score_init_std=0.5"},
         "stage 'masks': score_init_std is set and has no effect without score_init = \"noise\""},
        {{"masks.anneal=\"constant\"", "masks.final_top_k_epsilon=0.2"},
         "stage 'masks': final_top_k_epsilon is set and has no effect without an anneal"},
        {{"masks.compact_after=40"}, "stage 'masks': compact_after = 40 has no effect: the stage has 40 steps"},
        {{"masks.k_ramp=1", "masks.anneal_end=1"},
         "stage 'masks': k_ramp = 1: k comes down to the kept channels only after the last of 40 steps"},
        {{"pruned.calibration_tokens=4096"},
         "stage 'pruned': calibration_tokens is set and has no effect without scores that are measured on text"},
        {{"pruned.refit_damping=0.1"}, "stage 'pruned': refit_damping is set and has no effect without refit = true"},
        {{"pruned.refit=true"},
         "stage 'pruned': refit has no effect: masks that are learned together with the weights are what a cut is "
         "refitted to, and those of 'masks' end at 0 for all that goes"},
        {{"pruned.refit=true", "masks.mask_method=\"straight_through\"", "masks.mask_form=\"plain_then_top\""},
         "stage 'pruned': refit has no effect"},
        {{"scores.teacher=\"core\""},
         "stage 'scores': agreement is counted against 'core', which itself comes from 'dense'; teacher = \"dense\""},
        {{"model.student.intermediate_size=40"},
         "stage 'masks': intermediate_size 40 is no multiple of 32, so Q8_0 and Q4_0 files cannot hold it: 32 and 64 "
         "are the nearest (round_to = 32 refuses "
         "others); K-quants ask for 256: 256 is the nearest"},
        {{"model.source.intermediate_size=512", "model.student.intermediate_size=288"},
         "stage 'masks': intermediate_size 288 is no multiple of 256, so K-quants cannot hold it as they hold what it "
         "is cut from (512): 256 and 512 are the "
         "nearest"},
        {{"masks.budget=\"global\"", "masks.round_to=8"},
         "stage 'masks': budget = \"global\" leaves widths that are multiples of round_to = 8"},
    };
    for (const auto& each : cases) {
      const std::vector<std::string> lines = recipe_warnings(load(kTiny, each.settings));
      CAPTURE(each.settings.front());
      CAPTURE(lines.size());
      REQUIRE(!lines.empty());
      CHECK(lines.size() == 1);
      CHECK(lines.front().find(each.says) != std::string::npos);
      INFO(lines.front());
    }
  }

  TEST_CASE("recipe_warnings: widths that a device's kernels do not take in packs, where one computes") {
    const std::vector<std::string> odd = {"model.source.hidden_size=36", "core.device=\"cuda\"",
                                          "device=\"cpu\""};  // two heads of 18
    const std::vector<std::string> lines = recipe_warnings(load(kTiny, odd));
    CHECK(count_of(lines,
                   "stage 'core': heads of 18 are no multiple of 8 up to 256: on a device attention keeps all") == 1);
    CHECK(count_of(lines, "stage 'core': widths of 36 are no multiple of 8: on a device kernels move them") == 1);
    CHECK(lines.size() == 2);
    CHECK(recipe_warnings(load(kTiny, {"model.source.hidden_size=36", "device=\"cpu\""})) ==
          std::vector<std::string>{});
    CHECK(recipe_warnings(load(kTiny, {"core.device=\"cuda\"", "device=\"cpu\""})) == std::vector<std::string>{});
    CHECK(count_of(recipe_warnings(load(kTiny, {odd[0], odd[1], odd[2], "core.compute=\"fp32\""})), "heads of 18") ==
          0);
  }

  TEST_CASE("recipe_warnings: a refit that has something to repair is no matter") {
    for (const char* with : {"masks.mask_form=\"plain\"", "masks.freeze_weights=true"})
      CHECK(recipe_warnings(load(kTiny, {"pruned.refit=true", with})) == std::vector<std::string>{});
    for (const char* convention : {"l0", "flop", "llm_shearing"})
      CHECK(count_of(recipe_warnings(load(kTiny, {"pruned.refit=true", "masks.mask_method=\"hard_concrete\"",
                                                  "masks.hard_concrete=\"" + std::string(convention) + "\""})),
                     "refit has no effect") == (convention == std::string("llm_shearing")));
    CHECK(recipe_warnings(load(kTiny, {"cut_activation.refit=true", "cut_activation.refit_damping=0.1"})) ==
          std::vector<std::string>{});
    CHECK(recipe_warnings(load(kTiny, {"pruned.refit=true", "pruned.calibration_tokens=4096",
                                       "masks.freeze_weights=true"})) == std::vector<std::string>{});
  }

  TEST_CASE(
      "recipe_warnings: a cut that keeps every channel is said where the masks are learned, and for a one-shot cut "
      "where it is made") {
    const std::vector<std::string> lines = recipe_warnings(load(kTiny, {"model.student.intermediate_size=96"}));
    CHECK(count_of(lines,
                   "stage 'masks': model.student keeps all 96 channels of every layer of 'dense': there is nothing to "
                   "decide") == 1);
    CHECK(count_of(lines, "stage 'cut_activation': model.student is as wide as 'dense': nothing is cut") == 1);
    CHECK(lines.size() == 2);
  }

  TEST_CASE("recipe_warnings: a domain that none of a stage's samples comes from is named") {
    const std::vector<std::string> lines =
        recipe_warnings(load(kTiny, {"long.tokens=128", "long.batch_tokens=128", "long.checkpoint_steps=1"}));
    REQUIRE(lines.size() == 1);
    CHECK(lines[0] ==
          "stage 'long': domain 'prose' has weight 0.4, and none of the stage's 1 samples of 128 tokens comes from it");
  }

  TEST_CASE("recipe_warnings: a resolved recipe, which spells every default out, is as silent as the file") {
    CHECK(recipe_warnings(load(load(kTiny).resolved)) == std::vector<std::string>{});
  }

  TEST_CASE(
      "recipe_warnings: after a cut under one budget for all layers no width is judged that is not known, and all "
      "others are") {
    const std::string again =
        kTiny + "\n[[stage]]\nname = \"again\"\nkind = \"prune\"\nfrom = \"pruned\"\nscores = \"magnitude\"\n";
    const std::vector<std::string> lines =
        recipe_warnings(load(again, {"masks.budget=\"global\"", "masks.round_to=32",
                                     "model.student.intermediate_size=48"}));  // widths of 32 and 64
    CHECK(count_of(lines, "stage 'cut_activation': intermediate_size 48 is no multiple of 32") == 1);
    CHECK(count_of(lines, "stage 'pruned'") == 0);
    CHECK(count_of(lines, "stage 'again'") == 0);
  }

  TEST_CASE("corpus_warnings: epochs, calibration and evaluation against the tokens that there are") {
    const Recipe recipe = load(kTiny, {"scores.tokens=9000"});
    CHECK(corpus_warnings(recipe, {}).empty());  // nothing known
    CHECK(corpus_warnings(recipe, {.train = {{"prose", 50000}, {"code", 50000}}, .heldout = 9000}).empty());
    const std::vector<std::string> lines =
        corpus_warnings(recipe, {.train = {{"prose", 1000}, {"code", 2000}}, .heldout = 300});
    CHECK(count_of(lines, "stage 'dense' reads the corpus about 20.5 times") == 1);
    CHECK(count_of(lines, "stage 'cut_activation': calibration_tokens = 4096, and the corpus has about 3.0k") == 1);
    CHECK(count_of(lines, "stage 'masks': calibration_tokens = 16384") == 1);
    CHECK(count_of(lines, "stage 'scores': tokens = 9000, and about 300 are held out") == 1);
    const Recipe tunes = load(kTiny, {"scores.tokens=9000", "data.tuning_share=0.1", "scores.split=\"tuning\""});
    CHECK(count_of(corpus_warnings(tunes, {.train = {{"prose", 1e5}}, .heldout = 300, .tuning = 9000}), "9000") == 0);
    CHECK(count_of(corpus_warnings(tunes, {.train = {{"prose", 1e5}}, .heldout = 9000, .tuning = 200}),
                   "stage 'scores': tokens = 9000, and about 200 are set aside for tuning") == 1);
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("warnings: config, plan and run say a matter once each, and an ablation once for all its arms") {
    const Scratch scratch("once");
    write_tiny_run(scratch.path);
    const std::vector<std::string> options = {"--set", "dense.warmup_steps=999"};
    const auto said = [&](std::vector<std::string> command) {
      command.insert(command.end(), options.begin(), options.end());
      const Outcome outcome = run(scratch.path, command);
      const bool plans = command.front() == "plan";  // whose result they are part of
      const std::string &text = plans ? outcome.out : outcome.err, &other = plans ? outcome.err : outcome.out;
      CHECK(other.find("warning: stage") == std::string::npos);
      size_t found = 0;
      for (size_t at = text.find("warmup_steps = 999"); at != std::string::npos;
           at = text.find("warmup_steps = 999", at + 1))
        ++found;
      return found;
    };
    CHECK(said({"config", "tiny.toml"}) == 1);
    CHECK(said({"plan", "tiny.toml"}) == 1);
    CHECK(said({"data", "tokenize", "tiny.toml"}) == 1);
    spill(scratch.path / "arms.toml",
          "seeds = [1, 2]\n" + kTiny + "\n[[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\nset = { core.lr = 0.003 }\n");
    CHECK(said({"plan", "arms.toml"}) == 1);
    CHECK(said({"config", "arms.toml"}) == 1);
    spill(
        scratch.path / "arms.toml",
        "seeds = [1, 2]\n" + kTiny + "\n[[arm]]\nname = \"a\"\n[[arm]]\nname = \"b\"\nset = { core.jsd_beta = 0.3 }\n");
    const std::string text = run(scratch.path, {"config", "arms.toml"}).err;  // of an arm alone
    CHECK(text.find("stage 'core': jsd_beta is set and has no effect without loss = \"jsd\"") != std::string::npos);
  }
}
