// label: a teacher's choices, stored once, keyed by (shard, token offset); or labels made elsewhere, taken over.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"
#include "src/model/config.h"

namespace coppice {

struct LabelFingerprint;

/// Of softmaxes over logits, stored or live: beyond it float32 holds one id or all of them alike, or no number at all.
inline constexpr double kLeastTemperature = 0.01, kMostTemperature = 100;
/// Of what draws are made from instead, relative to that: below 1 the weights of rare ids grow without bounds.
inline constexpr double kMostProposalTemperature = 10;

struct LabelStage {
  std::string teacher;                    // an earlier model; empty with `import`, may be empty with `cache`
  std::string import;                     // folder of <domain>.jsonl or .jsonl.zst: labels made elsewhere
  std::string import_format = "coppice";  // or vllm (src/data/label_jsonl.h)
  bool low_mass = false;                  // of `import`: log-probabilities next to nothing on most tokens are meant so
  std::string import_teacher;  // what the fingerprint says of who made them; empty = what the files say, or their hash
  std::string cache;           // folder of <domain>/: the label caches of another run, or imported ones; only read
  std::string window_rule = "document";
  std::string coverage = "all";  // "used": only what stages with these labels will draw; "some" (import, cache): tokens
                                 // without one learn from the text alone
  int64_t context = 256;
  int64_t overlap = -1;  // -1: a quarter of context
  std::string tier = "top1";
  int64_t top_k = 64;        // of tiers topk and hybrid
  std::string code = "f16";  // of tier topk: or q8, ids and probabilities in fewer bytes
  int64_t draws = 16;        // of tier sample, and of tier hybrid what the top_k ids leave over
  uint64_t draw_seed = 1;    // of its own labels, not of labels from elsewhere
  double temperature = 1;
  double proposal_temperature = 1;                                         // of tier sample
  int64_t batch_tokens = 0;                                                // 0 = chosen when the stage begins
  bool has_own_labels() const { return import.empty() && cache.empty(); }  // made by its teacher, in its own folder
  bool has_top_k() const { return tier == "topk" || tier == "hybrid"; }
  bool is_drawn() const { return tier == "sample" || tier == "hybrid"; }
  /// What of these the labels' fingerprint says: tier, ids a token (draws of tier sample), draws beside them, code and
  /// temperatures.
  void describe(LabelFingerprint& fingerprint) const;

  template <class Field>
  void visit_fields(Field& field) {
    field("teacher", teacher, Mark::place, "the model that labels");
    field("import", import, Mark::place,
          "instead of a teacher: a folder with <domain>.jsonl or <domain>.jsonl.zst for every domain, labels made "
          "elsewhere");
    field(
        "import_format", import_format, Mark::decides,
        "coppice (the lists of docs/labels.md), or vllm: prompt_logprobs, or lists of any number of ids, of documents "
        "that are cut short or lack their end");
    field("low_mass", low_mass, Mark::cadence,
          "take imported log-probabilities of which most tokens hold less than 0.01 and no tail says so");
    field("import_teacher", import_teacher, Mark::decides,
          "name of who made them, part of the labels' fingerprint; empty = what the files say, or their hash");
    field("cache", cache, Mark::place,
          "a folder with a label cache for every domain, such as runs/demo/labels/labels: used where it lies, only "
          "read; `teacher`, when given, must have made it");
    field("window_rule", window_rule, Mark::decides,
          "document (each document alone) or aligned (the training windows)");
    field("coverage", coverage, Mark::decides,
          "all tokens; used: only those that stages with these labels will draw; or some (labels from import or "
          "cache): tokens without a label are trained on the text alone");
    field("context", context, Mark::decides, "tokens of a labelling window");
    field("overlap", overlap, Mark::decides,
          "tokens read but not labelled at a window's start; -1 = a quarter of context");
    field(
        "batch_tokens", batch_tokens, Mark::rounding,
        "tokens of one forward pass; 0 = 8192, or fewer when a CPU's memory is short; tiers that draw read each window "
        "alone");
    field("tier", tier, Mark::decides,
          "top1 (2 or 3 bytes a token), top1_prob (and its probability), topk, sample (ids drawn from the teacher's "
          "distribution) or hybrid (the most probable ids, and ids drawn from the others)");
    field("top_k", top_k, Mark::decides, "ids a token in tiers topk and hybrid");
    field("code", code, Mark::decides,
          "of tier topk: f16 (4 bytes an id, its log-probability to about half a percent) or q8 (about 2.7 bytes an id "
          "at 16 ids, to 3%)");
    field("draws", draws, Mark::decides,
          "draws a token in tiers sample and hybrid, 1 to 256; in tier sample equal ids are stored once");
    field("draw_seed", draw_seed, Mark::decides,
          "of the draws; a live teacher draws the same where it is the training stage's seed");
    field("temperature", temperature, Mark::decides,
          "of the stored probabilities and draws; a stage with loss = \"top_k\", \"sample\" or "
          "\"hybrid\" needs its kd_temperature, one with decoupled_top_k 1");
    field("proposal_temperature", proposal_temperature, Mark::decides,
          "of tier sample: draws are made at temperature times it, 1 to 10, and stored with their weights; 1 = plain "
          "draws, which are worth more of the same bytes");
  }
};

/// UserError::recipe(where) for a proposal_temperature out of range, of stored or live draws.
void check_proposal(double proposal_temperature, const std::string& where);
/// The file of one domain in the folder of a label stage's `import`; UserError::recipe(where) when there is none.
std::filesystem::path find_label_file(const std::filesystem::path& folder, const std::string& domain,
                                      const std::string& where);
/// The cache of one domain in the folder of a label stage's `cache`.
inline std::filesystem::path label_cache(const std::filesystem::path& folder, const std::string& domain) {
  return folder / domain;
}
/// The train stages that learn from a label stage's labels.
std::vector<const Stage*> readers_of(const Recipe& recipe, const std::string& label_stage);
/// Tokens of one forward pass of a label stage without batch_tokens: 8192, or on a CPU what fits into half of the
/// memory that is left beside the teacher; a window at least.
int64_t choose_label_batch(const ModelConfig& teacher, int64_t context, bool on_cpu);

/// Labels what nobody has claimed of the stage under way in `context`, until nothing is left; several processes may do
/// so. Shards labelled here.
struct LabelledShards {
  size_t here = 0, total = 0;
  uint64_t tokens = 0;  // of all shards
  int64_t batch_tokens = 0;
};
LabelledShards label_shards(const StageContext& context);
Json run_label(StageContext& context);

}  // namespace coppice
