// The recipe language: a TOML file becomes these structs, checked whole before any work starts.
// Rules: stage kinds are train, import, learn_masks, prune, label, evaluate, export; `from`, `teacher`, `labels`, `of`
// name earlier stages; an option of a stage is addressed as <stage name>.<key>; [model.student] inherits every key of
// [model.source]; [[arm]] tables with `seeds` make the file an ablation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "pruning/mask_options.h"
#include "src/cli/options.h"
#include "src/data/loader.h"
#include "src/model/config.h"
#include "src/optim/optimizer.h"
#include "src/tokens/tokenizer_training.h"
#include "student/targets.h"

namespace coppice {

class Sources;

struct DomainOptions {
  std::string name;
  std::string path;
  std::string text_key = "text";
  double weight = 1.0;
  double max_epochs = 0;

  template <class Field>
  void visit_fields(Field& field) {
    field("name", name, "what reports call it");
    field("path", path, ".jsonl, .ndjson, .json (each also with .gz or .zst behind it), .txt or a folder of them");
    field("text_key", text_key, "the JSON field that holds a document's text");
    field("weight", weight, "share in the mixture, relative to the others");
    field("max_epochs", max_epochs, "the mixture stops drawing from it then; 0 = no limit");
  }
};

struct DataOptions {
  std::vector<DomainOptions> domains;
  double heldout_share = 0.01;
  int64_t shard_tokens = int64_t{64} << 20;
  int64_t max_bad = -1;

  template <class Field>
  void visit_fields(Field& field) {
    field("max_bad", max_bad,
          "records of a corpus file that are no documents and are left out with a warning; -1 = the larger of 100 and "
          "0.1% of the file");
    field("heldout_share", heldout_share,
          "documents set aside by id hash, never trained on; evaluation reads only these");
    field("shard_tokens", shard_tokens, "tokens of a shard at most: the unit in which labelling resumes");
  }
};

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
  int64_t checkpoint_steps = 100;
  int keep_last = 2;
  bool keep_finished = false;
  int max_skipped_steps = 10;
  double z_loss = 1e-6;
  OptimizerOptions optimizer;
  std::vector<MixtureEntry> mixture;  // empty: the weights of [[data.domain]]

  template <class Field>
  void visit_fields(Field& field) {
    field("seq_len", seq_len, "tokens of one sequence");
    field("batch_tokens", batch_tokens, "tokens of one optimizer step; a multiple of seq_len");
    field("micro_batch_tokens", micro_batch_tokens, "tokens of one forward and backward (memory); 0 = the whole batch");
    field("document_mask", document_mask, "attention does not cross documents and positions restart with them");
    field("data_seed", data_seed,
          "order of the samples; 0 = the seed's own; another number is counted from the seed, so that every seed draws "
          "its own");
    field("eval_steps", eval_steps, "held-out loss every so many steps; 0 = about ten times a stage");
    field("eval_tokens", eval_tokens, "held-out tokens of such a look, spread over the domains");
    field("checkpoint_steps", checkpoint_steps, "a checkpoint every so many steps");
    field("keep_last", keep_last, "checkpoints kept while the stage runs; at least 2");
    field("keep_finished", keep_finished,
          "leave the last checkpoints, optimizer state included, when the stage is finished");
    field("max_skipped_steps", max_skipped_steps, "more skipped steps in a row end the run (exit 6)");
    field("z_loss", z_loss, "weight of (log-sum-exp of the logits)^2");
    optimizer.visit_fields(field);
  }
  int64_t rows() const { return batch_tokens / seq_len; }  // sequences of one step
  int64_t micro_rows() const { return (micro_batch_tokens == 0 ? batch_tokens : micro_batch_tokens) / seq_len; }
  int64_t steps() const;  // tokens / batch_tokens, rounded, at least 1
};

struct TrainStage {
  std::string model;  // name of a [model.*] table; empty with `from`
  std::string from;   // earlier stage; empty = fresh weights
  // Teachers: label stages, or earlier models that are read while this stage trains; both empty = true labels only.
  std::vector<std::string> labels, teachers;
  std::vector<double> teacher_shares;  // as many as teachers; they add up to 1
  int64_t top_k = 64;                  // of loss top_k with a live teacher
  KdOptions distillation;
  double rope_theta = 0;  // 0 = as the model has it
  TrainingOptions training;
  bool has_teacher() const { return !labels.empty() || !teachers.empty(); }
};

struct ImportStage {
  std::string path;    // Hugging Face folder
  ModelConfig config;  // of the model it leaves: padded rows of the vocabulary are cut
  int64_t attention_window =
      0;  // > 0: texts up to so many tokens are seen whole, longer ones through a window, which we do not have
};

struct LearnMasksStage {
  std::string from;
  std::string target = "student";  // [model.*] whose intermediate_size is the budget
  MaskOptions masks;
  TrainingOptions training;
};

struct PruneStage {
  std::string from;
  std::string target = "student";
  std::string scores;  // "masks" after learn_masks, otherwise a row of the score table
  int64_t calibration_tokens = 65536;
};

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
  int64_t top_k = 64;  // of tier topk
  double temperature = 1;
  int64_t batch_tokens = 0;  // 0 = chosen from the memory that is there when the stage begins
  bool has_own_labels() const { return import.empty() && cache.empty(); }  // made by its teacher, in its own folder
};

struct EvaluateStage {
  std::vector<std::string> of;
  std::string teacher;  // empty: the first of `of`
  int64_t seq_len = 256;
  int64_t tokens = 0;  // held-out tokens at most, spread over the domains; 0 = all
  int64_t batch_tokens = 8192;
  std::vector<std::string> tasks;  // files of multiple-choice items
};

struct ExportStage {
  std::string from;
  std::vector<std::string> formats = {"hf"};
  std::string dtype = "f32";
};

struct Stage {
  std::string name, kind, where;  // where = file:line
  uint64_t seed = 1;              // in force: its own, or the recipe's
  std::variant<TrainStage, ImportStage, LearnMasksStage, PruneStage, LabelStage, EvaluateStage, ExportStage> options;
  /// Names of the earlier stages it reads.
  std::vector<std::string> inputs() const;
};

/// One arm of an ablation: the same file with these keys set and these stages removed.
struct ArmOptions {
  std::string name, where;
  std::string reference;  // empty = the recipe's
  std::vector<Override> set;
  std::vector<std::string> drop;
};

struct Recipe {
  std::string name;
  uint64_t seed = 1;
  std::string device = "auto";
  int threads = 0;
  int grace_s = 25;
  DataOptions data;
  TokenizerOptions tokenizer;
  std::map<std::string, ModelConfig> models;
  std::vector<Stage> stages;
  std::vector<ArmOptions> arms;      // empty unless the file is an ablation
  std::vector<uint64_t> seeds;       // of an ablation; empty = the recipe's seed
  std::string reference;             // arm that the others are compared with; empty = the first
  std::vector<std::string> compare;  // stages whose models are compared; empty = the last one evaluated
  std::string resolved;              // canonical TOML
  std::string with_origins;          // the same with a comment per line
  std::shared_ptr<Sources> sources;  // what it reads from outside; its arms share it

  const Stage& stage(const std::string& stage_name) const;  // InternalError when absent
  /// Shape of the model a stage leaves behind (train, import, learn_masks, prune), by the rules alone.
  ModelConfig model_after(const std::string& stage_name) const;
  /// The import stage whose model this stage's descends from by cutting and training; nullptr when it began with fresh
  /// weights.
  const Stage* imported_from(std::string stage_name) const;
  /// The cut under one budget for all layers that a stage's model descends from, so that its layers' widths are not
  /// known; nullptr when there is none.
  const Stage* global_cut(std::string stage_name) const;
};

/// Reads, resolves and checks a recipe; every refusal is UserError::recipe with file:line (exit 2). `sources`: what a
/// run recorded of what lies outside; left out, those of runs/<name>. `arm`: as that arm of it changes the file.
Recipe load_recipe(const std::string& file, const std::vector<Override>& overrides,
                   const std::vector<std::string>& unset, std::shared_ptr<Sources> sources = nullptr,
                   const ArmOptions* arm = nullptr);
/// The recipe that a run folder holds, as the run knew the world.
Recipe load_recorded_recipe(const std::filesystem::path& run_root);
/// The file of one domain in the folder of a label stage's `import`; UserError::recipe(where) when there is none.
std::filesystem::path find_label_file(const std::filesystem::path& folder, const std::string& domain,
                                      const std::string& where);
/// The cache of one domain in the folder of a label stage's `cache`.
inline std::filesystem::path label_cache(const std::filesystem::path& folder, const std::string& domain) {
  return folder / domain;
}
/// The earlier stage whose model a stage goes on from; empty for fresh weights, an import, and stages that leave no
/// model.
std::string start_of(const Stage& stage);
/// The options that train and learn_masks share; nullptr for other kinds.
const TrainingOptions* training_of(const Stage& stage);

}  // namespace coppice
