#include "recipes/run/recipe_warnings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <set>
#include <tuple>

#include "pruning/scores.h"
#include "recipes/language/training_options.h"
#include "recipes/run/before_work.h"
#include "recipes/run/lineage.h"
#include "recipes/stages/cut_target.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/export.h"
#include "recipes/stages/label.h"
#include "recipes/stages/learn_masks.h"
#include "recipes/stages/prune.h"
#include "recipes/stages/refit.h"
#include "recipes/stages/train.h"
#include "src/base/log.h"
#include "src/corpus/run/corpus_settings.h"
#include "src/tensors/device.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {
namespace {

constexpr double kEpochs = 4;  // repeats beyond four epochs are worth little (Muennighoff et al. 2023, 2305.16264)
constexpr int64_t kBlock = 32, kSuperBlock = 256;  // of Q8_0, Q4_0, Q5_0; of the K-quants
constexpr uint64_t kMostSamples = 1'000'000;       // whose mixture is counted out

using Say = std::function<void(const std::string&)>;

/// An option away from its default, and what it would need to act.
struct IdleOption {
  const char* key;
  bool is_set, acts;
  const char* needs;
};

void say_idle(const Stage& stage, std::initializer_list<IdleOption> options, const Say& say) {
  for (const IdleOption& option : options)
    if (option.is_set && !option.acts)
      say(fmt::format("stage '{}': {} is set and has no effect without {}", stage.name, option.key, option.needs));
}

/// The multiples around a width: "192 and 224", or the one above a width that is below the first.
std::string nearest_multiples(int64_t width, int64_t unit) {
  const int64_t below = width / unit * unit;
  return below == 0 ? fmt::format("{} is the nearest", unit)
                    : fmt::format("{} and {} are the nearest", below, below + unit);
}

// -- one function a matter; each looks at one stage --

void check_warmup(const Recipe&, const Stage& stage, const Say& say) {
  const TrainingOptions* training = training_of(stage);
  if (training == nullptr || training->optimizer.warmup_steps < training->steps() ||
      training->optimizer.warmup_steps <= 1)
    return;
  const int64_t warmup = training->optimizer.warmup_steps, steps = training->steps();
  say(
      fmt::format("stage '{}': warmup_steps = {}, and the stage has {} steps: the warm-up takes all of them and ends "
                  "at {:.3g}% of lr; -1 takes the smaller of "
                  "the published value "
                  "and a tenth of the steps",
                  stage.name, warmup, steps, 100.0 * static_cast<double>(steps) / static_cast<double>(warmup)));
}

void check_cadence(const Recipe&, const Stage& stage, const Say& say) {
  const TrainingOptions* training = training_of(stage);
  if (training == nullptr) return;
  const int64_t steps = training->steps();
  if (training->checkpoint_steps > steps && training->checkpoint_steps != TrainingOptions().checkpoint_steps)
    say(fmt::format("stage '{}': checkpoint_steps = {}, and the stage has {} steps: a kill loses all of it", stage.name,
                    training->checkpoint_steps, steps));
  if (training->eval_steps > steps && training->eval_tokens > 0)
    say(fmt::format(
        "stage '{}': eval_steps = {}, and the stage has {} steps: held-out loss is measured at its end alone",
        stage.name, training->eval_steps, steps));
  for (const auto& [key, is_set] : {std::pair{"eval_steps", training->eval_steps > 0},
                                    {"eval_split", training->eval_split != TrainingOptions().eval_split}})
    if (is_set && training->eval_tokens == 0)
      say(fmt::format("stage '{}': {} is set and has no effect with eval_tokens = 0", stage.name, key));
  if (training->tokens < training->batch_tokens)
    say(fmt::format("stage '{}': tokens = {} is less than one step of batch_tokens = {}: it trains on {}", stage.name,
                    training->tokens, training->batch_tokens, training->batch_tokens));
  if (training->optimizer.max_grad_norm > training->optimizer.drop_grad_norm)
    say(fmt::format("stage '{}': max_grad_norm = {} has no effect: steps from drop_grad_norm = {} on are skipped",
                    stage.name, training->optimizer.max_grad_norm, training->optimizer.drop_grad_norm));
}

void check_mixture(const Recipe&, const Stage& stage, const Say& say) {
  const TrainingOptions* training = training_of(stage);
  if (training == nullptr) return;
  const auto samples = static_cast<uint64_t>(training->steps()) * static_cast<uint64_t>(training->rows());
  if (samples > kMostSamples) return;
  const std::vector<uint64_t> counts = mixture_counts(training->mixture, samples);
  for (size_t d = 0; d < counts.size(); ++d)
    if (counts[d] == 0)
      say(fmt::format(
          "stage '{}': domain '{}' has weight {:g}, and none of the stage's {} samples of {} tokens comes from it",
          stage.name, training->mixture[d].domain, training->mixture[d].weight, samples, training->seq_len));
}

void check_distillation(const Recipe&, const Stage& stage, const Say& say) {
  const auto* train = stage.find<TrainStage>();
  if (train == nullptr) return;
  const KdOptions& kd = train->distillation;
  const KdOptions plain;
  const bool taught = train->has_teacher(), hidden = kd.hidden_loss != "none";
  const int64_t steps = train->training.steps();
  say_idle(stage,
           {{"teacher_weight", kd.teacher_weight != plain.teacher_weight && kd.teacher_weight != 0, taught,
             "`labels` or `teacher`"},
            {"teacher_weight_end", kd.teacher_weight_end != plain.teacher_weight_end, taught, "`labels` or `teacher`"},
            {"distil_from", kd.distil_from != plain.distil_from, taught, "`labels` or `teacher`"},
            {"distil_to", kd.distil_to != plain.distil_to, taught, "`labels` or `teacher`"},
            {"jsd_beta", kd.beta != plain.beta, kd.loss == "jsd", "loss = \"jsd\""},
            {"top_k", train->top_k != TrainStage().top_k, reads_top_k(kd.loss) && !train->teachers.empty(),
             "loss = \"top_k\", \"decoupled_top_k\" or \"hybrid\" and a live `teacher`"},
            {"draws", train->draws != TrainStage().draws, reads_draws(kd.loss) && !train->teachers.empty(),
             "loss = \"sample\" or \"hybrid\" and a live `teacher`"},
            {"proposal_temperature", train->proposal_temperature != TrainStage().proposal_temperature,
             kd.loss == "sample" && !train->teachers.empty(), "loss = \"sample\" and a live `teacher`"},
            {"hidden_weight", kd.hidden_weight != plain.hidden_weight, hidden, "hidden_loss"},
            {"hidden_layers", !kd.hidden_layers.empty(), hidden, "hidden_loss"}},
           say);
  if (!taught) return;
  int64_t distilling = 0;
  for (int64_t step = 0; step < steps && distilling < 2; ++step) distilling += distils_at(kd, step, steps);
  if (distilling == 0)
    say(fmt::format(
        "stage '{}': no step lies between distil_from = {:g} and distil_to = {:g} of its {}: its teacher has no effect",
        stage.name, kd.distil_from, kd.distil_to, steps));
  if (distilling == 1 && kd.teacher_weight_end != plain.teacher_weight_end)
    say(fmt::format("stage '{}': teacher_weight_end has no effect: the teacher counts in one step alone", stage.name));
}

void check_masks(const Recipe& recipe, const Stage& stage, const Say& say) {
  const auto* learned = stage.find<LearnMasksStage>();
  if (learned == nullptr) return;
  const MaskOptions& masks = learned->masks;
  const MaskOptions plain;
  const bool gates = masks.mask_method == "hard_concrete", descends = masks.mask_method == "coordinate_descent";
  const bool soft = descends || masks.mask_method == "soft_top_k";
  say_idle(
      stage,
      {{"descent_rounds", masks.descent_rounds != plain.descent_rounds, descends,
        "mask_method = \"coordinate_descent\""},
       {"descent_scaled", masks.descent_scaled != plain.descent_scaled, descends,
        "mask_method = \"coordinate_descent\""},
       {"descent_start", masks.descent_start != plain.descent_start, descends, "mask_method = \"coordinate_descent\""},
       {"hard_concrete", masks.hard_concrete != plain.hard_concrete, gates, "mask_method = \"hard_concrete\""},
       {"gate_lr", masks.gate_lr != plain.gate_lr, gates, "mask_method = \"hard_concrete\""},
       {"multiplier_lr", masks.multiplier_lr != plain.multiplier_lr, gates, "mask_method = \"hard_concrete\""},
       {"score_lr", masks.score_lr != plain.score_lr, !gates, "another mask_method: hard_concrete has gate_lr"},
       {"score_scale", masks.score_scale != plain.score_scale, !gates, "another mask_method: hard_concrete has gates"},
       {"score_init_std", masks.score_init_std != plain.score_init_std, masks.score_init == "noise" && !gates,
        "score_init = \"noise\""},
       {"top_k_epsilon", masks.top_k_epsilon != plain.top_k_epsilon, soft, "soft_top_k or coordinate_descent"},
       {"mask_form", masks.mask_form != plain.mask_form, soft, "soft_top_k or coordinate_descent"},
       {"final_top_k_epsilon", masks.final_top_k_epsilon != plain.final_top_k_epsilon,
        soft && masks.anneal != "constant", "an anneal of soft_top_k or coordinate_descent"}},
      say);
  const int64_t steps = learned->training.steps();
  if (masks.compact_after >= steps)
    say(fmt::format("stage '{}': compact_after = {} has no effect: the stage has {} steps", stage.name,
                    masks.compact_after, steps));
  if (const double ramped = masks.k_ramp * static_cast<double>(steps);
      ramped > static_cast<double>(steps - 1) && steps > 1)
    say(
        fmt::format("stage '{}': k_ramp = {:g}: k comes down to the kept channels only after the last of {} steps, so "
                    "no step trains at that width",
                    stage.name, masks.k_ramp, steps));
  const CutAxis axis = axis_of(learned->axis);
  const std::vector<int64_t> before = units_of(recipe.model_after(learned->from), axis);
  if (units_of(recipe.models.at(learned->target), axis) == before)
    say(
        fmt::format("stage '{}': model.{} keeps all {} {}{} of '{}': there is nothing to decide, every mask is 1 and "
                    "its cut changes "
                    "nothing",
                    stage.name, learned->target, fmt::join(std::set<int64_t>(before.begin(), before.end()), "/"),
                    axis == CutAxis::ffn ? "channels" : row_of(axis).units,
                    row_of(axis).per_layer ? " of every layer" : "", learned->from));
}

void check_prune(const Recipe& recipe, const Stage& stage, const Say& say) {
  const auto* prune = stage.find<PruneStage>();
  if (prune == nullptr) return;
  say_idle(stage,
           {{"calibration_tokens", prune->calibration_tokens != PruneStage().calibration_tokens,
             needs_calibration(*prune), "scores that are measured on text, or refit = true"},
            {"refit_damping", prune->refit_damping != PruneStage().refit_damping, prune->refit, "refit = true"}},
           say);
  if (prune->refit && !refit_has_work(recipe, *prune))
    say(
        fmt::format("stage '{}': refit has no effect: masks that are learned together with the weights are what a cut "
                    "is refitted to, and those of '{}' end at 0 for all that goes",
                    stage.name, prune->from));
  if (prune->scores != "masks" && (prune->axis != "ffn" || global_cut(recipe, prune->from) == nullptr) &&
      recipe.model_after(stage.name) == recipe.model_after(prune->from))
    say(fmt::format("stage '{}': model.{} is as wide as '{}': nothing is cut", stage.name, prune->target, prune->from));
  const ModelConfig left = recipe.model_after(stage.name);
  for (const auto& [axis, what, row] :  // rows of what reads the residual stream, and of o_proj
       {std::tuple{"hidden", "hidden_size", left.hidden_size},
        {"heads", "num_attention_heads x head_dim =", left.num_attention_heads * left.head_dim}})
    if (prune->axis == axis && row % kBlock != 0)
      say(fmt::format("stage '{}': {} {} is no multiple of {}, so Q8_0 and Q4_0 files cannot hold it: {}", stage.name,
                      what, row, kBlock, nearest_multiples(row, kBlock)));
}

/// Without asking the driver: a recipe may be read on another machine than it runs on.
void check_where_it_computes(const Recipe&, const Stage& stage, const Say& say) {
  const bool cuda = stage.placement.device != "cpu" && built_with_cuda();
  say_idle(stage,
           {{"attention", stage.placement.attention != PlacementOptions().attention, cuda,
             "a CUDA device: a CPU's repeats always"}},
           say);
  const bool bf16 = stage.placement.compute == "bf16" || (stage.placement.compute == "auto" && cuda);
  if (const TrainingOptions* training = training_of(stage); training != nullptr)
    say_idle(stage,
             {{"float_logits", training->float_logits, bf16, "compute = \"bf16\""},
              {"master", training->master != TrainingOptions().master, bf16, "compute = \"bf16\""}},
             say);
  if (stage.placement.compute == "bf16" && !cuda && kind_of(stage).computes && !kind_of(stage).in_fp32)
    say("compute = \"bf16\" on a CPU rehearses a run on a device: every kernel is run thread by thread, thousands of "
        "times slower than fp32 is; for models of a few channels");
}

/// What a device's kernels move in packs, and its attention takes, are multiples of 8.
void check_device_widths(const Recipe& recipe, const Stage& stage, const Say& say) {
  const std::string& device = stage.placement.device;
  if (device == "cpu" || (device == "auto" && !built_with_cuda()) || training_of(stage) == nullptr) return;
  constexpr int64_t kPack = 8, kWidestHead = 256;
  const ModelConfig config = recipe.model_after(stage.name);
  if (stage.placement.compute != "fp32" && (config.head_dim % kPack != 0 || config.head_dim > kWidestHead))
    say(fmt::format(
        "stage '{}': heads of {} are no multiple of {} up to {}: on a device attention keeps all scores of a "
        "micro-batch in memory, and is slow",
        stage.name, config.head_dim, kPack, kWidestHead));
  std::vector<int64_t> odd;
  for (const int64_t width : config.intermediate_size)
    if (width % kPack != 0 && std::ranges::find(odd, width) == odd.end()) odd.push_back(width);
  if (config.hidden_size % kPack != 0) odd.insert(odd.begin(), config.hidden_size);
  if (!odd.empty())
    say(fmt::format(
        "stage '{}': widths of {} are no multiple of {}: on a device kernels move them one value at a time, "
        "and are slow",
        stage.name, fmt::join(odd, ", "), kPack));
}

void check_labels(const Recipe& recipe, const Stage& stage, const Say& say) {
  if (const auto* train = stage.find<TrainStage>())
    for (const std::string& name : train->labels)
      if (const auto& label = recipe.stage(name).get<LabelStage>();
          label.window_rule == "aligned" && label.context != train->training.seq_len)
        say(
            fmt::format("stage '{}': the teacher of '{}' reads windows of {} tokens, this stage's are {}: its labels "
                        "see another context than a live "
                        "teacher's would (window_rule = \"aligned\" is made for context = seq_len)",
                        stage.name, name, label.context, train->training.seq_len));
  const auto* label = stage.find<LabelStage>();
  if (label == nullptr) return;
  const LabelStage plain;
  if (label->cache.empty())
    say_idle(stage,
             {{"temperature", label->temperature != plain.temperature, label->tier != "top1",
               "tier = \"top1_prob\", \"topk\", \"sample\" or \"hybrid\""},
              {"top_k", label->top_k != plain.top_k, label->has_top_k(), "tier = \"topk\" or \"hybrid\""},
              {"code", label->code != plain.code, label->tier == "topk", "tier = \"topk\""},
              {"draws", label->draws != plain.draws, label->is_drawn(), "tier = \"sample\" or \"hybrid\""},
              {"proposal_temperature", label->proposal_temperature != plain.proposal_temperature,
               label->tier == "sample", "tier = \"sample\""},
              {"draw_seed", label->draw_seed != plain.draw_seed, label->is_drawn(), "tier = \"sample\" or \"hybrid\""},
              {"batch_tokens", label->batch_tokens != plain.batch_tokens, !label->is_drawn(),
               "another tier: sample and hybrid read each window alone"}},
             say);
  bool read = false, after = false, untaught = false;
  for (const Stage& other : recipe.stages) {
    after = after || other.name == stage.name;
    const auto* train = other.find<TrainStage>();
    if (!after || train == nullptr) continue;
    read = read || std::ranges::find(train->labels, stage.name) != train->labels.end();
    untaught = untaught || !train->has_teacher();
  }
  if (!read && (label->coverage == "used" || untaught))
    say(fmt::format("stage '{}': no train stage names it in `labels`, so {}", stage.name,
                    label->coverage == "used" ? "coverage = \"used\" labels nothing" : "nothing learns from it"));
}

void check_agreement(const Recipe& recipe, const Stage& stage, const Say& say) {
  const auto* evaluate = stage.find<EvaluateStage>();
  if (evaluate == nullptr) return;
  for (const std::string& name : evaluate->of)
    if (lineage_of(recipe, name).cut.empty() && !lineage_of(recipe, evaluate->teacher).cut.empty() &&
        descends_from(recipe, evaluate->teacher, name)) {
      say(
          fmt::format("stage '{}': agreement is counted against '{}', which itself comes from '{}'; teacher = \"{}\" "
                      "counts it against that",
                      stage.name, evaluate->teacher, name, name));
      return;
    }
}

/// Rows of a down projection are as long as its layer is wide, and block formats hold whole blocks of a row only.
/// K-quants are spoken of where the cut takes them away: many models never had them.
void check_widths(const Recipe& recipe, const Stage& stage, std::set<int64_t>& said, const Say& say) {
  constexpr int64_t kGlobal = 0;  // stands in `said` for widths that a global budget decides
  std::vector<int64_t> widths, before;
  std::string remedy;
  if (const auto* learned = stage.find<LearnMasksStage>()) {
    widths = shape_after_cut(recipe, learned->from, learned->target, axis_of(learned->axis)).intermediate_size;
    before = recipe.model_after(learned->from).intermediate_size;
    remedy = fmt::format(" (round_to = {} refuses others)", kBlock);
    if (const int64_t unit = learned->masks.round_to; learned->masks.budget == "global") {
      if (unit % kBlock != 0 && widths != before && said.insert(kGlobal).second)
        say(
            fmt::format("stage '{}': budget = \"global\" leaves widths that are multiples of round_to = {}; Q8_0 and "
                        "Q4_0 files hold multiples of {} alone, "
                        "K-quants of {}: round_to = {} or {} leaves such",
                        stage.name, unit, kBlock, kSuperBlock, kBlock, kSuperBlock));
      return;
    }
  } else if (global_cut(recipe, stage.name) != nullptr) {
    return;  // said where the masks are learned; a later cut by a score keeps what is narrower
  } else if (const auto* prune = stage.find<PruneStage>()) {
    widths = recipe.model_after(stage.name).intermediate_size;
    before = recipe.model_after(prune->from).intermediate_size;
  } else if (const auto* exported = stage.find<ExportStage>()) {
    widths = recipe.model_after(exported->from).intermediate_size;
  }
  for (size_t layer = 0; layer < widths.size(); ++layer) {
    const int64_t width = widths[layer];
    const bool loses = layer < before.size() && before[layer] % kSuperBlock == 0 && width % kSuperBlock != 0;
    if ((width % kBlock == 0 && !loses) || !said.insert(width).second) continue;
    if (width % kBlock != 0)
      say(
          fmt::format("stage '{}': intermediate_size {} is no multiple of {}, so Q8_0 and Q4_0 files cannot hold it: "
                      "{}{}; K-quants ask for {}: {}",
                      stage.name, width, kBlock, nearest_multiples(width, kBlock), remedy, kSuperBlock,
                      nearest_multiples(width, kSuperBlock)));
    else
      say(
          fmt::format("stage '{}': intermediate_size {} is no multiple of {}, so K-quants cannot hold it as they hold "
                      "what it is cut from ({}): {}",
                      stage.name, width, kSuperBlock, before[layer], nearest_multiples(width, kSuperBlock)));
  }
}

/// Of the recipe's own corpus.
void check_unused_sources(const Recipe& recipe, const Say& say) {
  if (recipe.data.corpus == nullptr) return;
  for (const SourceOptions& source : recipe.data.corpus->sources)
    if (std::ranges::none_of(recipe.data.domains, [&](const DomainOptions& domain) {
          return std::ranges::find(domain.sources, source.name) != domain.sources.end();
        }))
      say(fmt::format("source '{}' is in no [[data.domain]]: the corpus holds its documents, and no stage reads them",
                      source.name));
}

std::vector<std::string> once_each(const std::vector<std::string>& lines) {
  std::set<std::string> said;
  std::vector<std::string> different;
  std::ranges::copy_if(lines, std::back_inserter(different),
                       [&](const std::string& line) { return said.insert(line).second; });
  return different;
}

constexpr void (*kMatters[])(const Recipe&, const Stage&, const Say&) = {
    check_warmup, check_cadence,           check_mixture,       check_distillation, check_masks,
    check_prune,  check_where_it_computes, check_device_widths, check_labels,       check_agreement};

}  // namespace

std::vector<std::string> recipe_warnings(const Recipe& recipe) {
  std::vector<std::string> lines;
  const Say say = [&](const std::string& line) { lines.push_back(line); };
  if (const TokenizerOptions plain; !recipe.tokenizer.path.empty())
    for (const auto& [key, is_set] :
         {std::pair{"training_bytes", recipe.tokenizer.training_bytes != plain.training_bytes},
          {"character_coverage", recipe.tokenizer.character_coverage != plain.character_coverage}})
      if (is_set)
        say(fmt::format("tokenizer.{} is set and has no effect: tokenizer.path names one that is trained already",
                        key));
  if (std::ranges::any_of(recipe.stages, [](const Stage& stage) { return stage.kind == "export"; }))
    if (const Tokenizer* given = given_tokenizer(recipe, Missing::allowed))
      if (const std::string warning = prefix_warning(*given); !warning.empty()) say(warning);
  check_unused_sources(recipe, say);
  std::set<int64_t> widths;
  for (const Stage& stage : recipe.stages) {
    for (const auto& matter : kMatters) matter(recipe, stage, say);
    check_widths(recipe, stage, widths, say);
  }
  return lines;
}

std::vector<std::string> corpus_warnings(const Recipe& recipe, const CorpusTokens& corpus) {
  std::vector<std::string> lines;
  double all = 0;
  for (const auto& [domain, tokens] : corpus.train) all += tokens;
  if (all <= 0 || !corpus.unmade.empty()) return lines;
  for (const Stage& stage : recipe.stages) {
    if (const TrainingOptions* training = training_of(stage);
        training != nullptr && static_cast<double>(training->tokens) > kEpochs * all)
      lines.push_back(fmt::format("stage '{}' reads the corpus about {:.1f} times", stage.name,
                                  static_cast<double>(training->tokens) / all));
    int64_t calibration = 0;
    if (const auto* masks = stage.find<LearnMasksStage>()) calibration = masks->masks.calibration_tokens;
    if (const auto* prune = stage.find<PruneStage>(); prune != nullptr && needs_calibration(*prune))
      calibration = prune->calibration_tokens;
    if (static_cast<double>(calibration) > all)
      lines.push_back(fmt::format(
          "stage '{}': calibration_tokens = {}, and the corpus has about {}: the same text is read more than once",
          stage.name, calibration, format_count(all)));
    if (const auto* evaluate = stage.find<EvaluateStage>()) {
      const bool tunes = evaluate->split == "tuning";
      const double there = tunes ? corpus.tuning : corpus.heldout;
      if (static_cast<double>(evaluate->tokens) > there)
        lines.push_back(fmt::format("stage '{}': tokens = {}, and about {} are {}: all of them are scored, and no more",
                                    stage.name, evaluate->tokens, format_count(there),
                                    tunes ? "set aside for tuning" : "held out"));
    }
  }
  return lines;
}

void log_warnings(const std::vector<std::string>& lines) {
  for (const std::string& line : once_each(lines)) log_warning(line);
}

std::string warnings_text(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : once_each(lines)) text += "warning: " + line + "\n";
  return text;
}

}  // namespace coppice
