// What the kinds of stages that train have in common, and how their tables are read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"
#include "src/base/option_mark.h"
#include "src/cli/options.h"
#include "src/data/loader.h"
#include "src/optim/optimizer.h"

namespace coppice {

struct DataOptions;

/// What train and learn_masks have in common.
struct TrainingOptions {
  int64_t tokens = 0;
  int64_t seq_len = 256;
  int64_t batch_tokens = 2048;
  int64_t micro_batch_tokens = 0;
  bool document_mask = false;
  uint64_t data_seed = 0;
  int64_t eval_steps = 0;
  int64_t eval_tokens = 16384;
  std::string eval_split = "heldout";
  int64_t checkpoint_steps = 100;
  int keep_last = 2;
  bool keep_finished = false;
  int max_skipped_steps = 10;
  double z_loss = 1e-6;
  bool float_logits = false;
  std::string recompute = "auto";
  std::string master = "auto";
  OptimizerOptions optimizer;
  std::vector<MixtureEntry> mixture;  // empty: the weights of [[data.domain]]

  template <class Field>
  void visit_fields(Field& field) {
    field("tokens", tokens, Mark::decides, "tokens to train on, for instance 1.2e6");
    field("optimizer", optimizer.optimizer, Mark::decides, "adastar or adamw");  // early: other defaults hang on it
    field("seq_len", seq_len, Mark::decides, "tokens of one sequence");
    field("batch_tokens", batch_tokens, Mark::decides, "tokens of one optimizer step; a multiple of seq_len");
    field("micro_batch_tokens", micro_batch_tokens, Mark::rounding,
          "tokens of one forward and backward (memory); 0 = the whole batch");
    field("document_mask", document_mask, Mark::decides,
          "attention does not cross documents and positions restart with them");
    field("data_seed", data_seed, Mark::decides,
          "order of the samples; 0 = the seed's own; another number is counted from the seed, so that every seed draws "
          "its own");
    field("eval_steps", eval_steps, Mark::cadence, "held-out loss every so many steps; 0 = about ten times a stage");
    field("eval_tokens", eval_tokens, Mark::cadence, "held-out tokens of such a look, spread over the domains");
    field("eval_split", eval_split, Mark::cadence,
          "the text of such a look: heldout, or tuning (data.tuning_share), which options are chosen by");
    field("checkpoint_steps", checkpoint_steps, Mark::cadence, "a checkpoint every so many steps");
    field("keep_last", keep_last, Mark::cadence, "checkpoints kept while the stage runs; at least 2");
    field("keep_finished", keep_finished, Mark::cadence,
          "leave the last checkpoints, optimizer state included, when the stage is finished");
    field("max_skipped_steps", max_skipped_steps, Mark::cadence, "more skipped steps in a row end the run (exit 6)");
    field("z_loss", z_loss, Mark::decides, "weight of (log-sum-exp of the logits)^2");
    field("float_logits", float_logits, Mark::rounding,
          "with compute = \"bf16\": the logits that the loss and its gradient are made from are fp32, which takes more "
          "memory; what is evaluated and stored is fp32 either way");
    field("recompute", recompute, Mark::rounding,
          "what the backward pass computes again instead of keeping it (memory), to the same bits: none, elementwise "
          "(norm outputs and the FFN's hidden values, no product), gate_up (the FFN's first product too), layer (all "
          "but each layer's input), or auto: none on a CPU, on a device the quickest that fits");
    field(
        "master", master, Mark::rounding,
        "with compute = \"bf16\": fp32 (4 bytes a parameter beside the working copy), split (2, the working copy being "
        "its upper half; the same bits), or auto: split on a device that fp32 does not fit into or costs time on, by "
        "the plan");
    optimizer.visit_fields(field);
  }
  int64_t rows() const { return batch_tokens / seq_len; }  // sequences of one step
  int64_t micro_rows() const { return (micro_batch_tokens == 0 ? batch_tokens : micro_batch_tokens) / seq_len; }
  int64_t steps() const;  // tokens / batch_tokens, rounded, at least 1
};

/// Makes the keys of TrainingOptions ready to be read: `tokens` is a count, and adamw has other published settings than
/// adastar, which are defaults, so that a recipe may still set each.
void prepare_training(OptionTable& table, TrainingOptions& training);
/// Checks what was read (UserError::recipe), fills the mixture from [[stage.mixture]] or the weights of
/// [[data.domain]], and makes data_seed the stage's own: `seed` is the one in force.
void finish_training(OptionTable& table, TrainingOptions& training, const DataOptions& data, uint64_t seed);
/// Refuses a split that is neither "heldout" nor "tuning", and "tuning" where no documents are set aside for it.
void check_split(const std::string& split, const DataOptions& data, const std::string& where, const std::string& key);

/// What decides which tokens a stage draws, and in which order.
Json drawing_json(const TrainingOptions& training);
/// Of no mark that decides, and yet in the fingerprints of runs from the start.
inline constexpr std::string_view kAlsoInFingerprints[] = {"micro_batch_tokens", "eval_steps", "eval_tokens"};

}  // namespace coppice
