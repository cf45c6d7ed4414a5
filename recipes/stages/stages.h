// The stages: a row each in the table, a file each (<kind>.cpp). A stage is a short script: load, loop, save.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "recipes/run/before_work.h"
#include "recipes/stages/prepare_data.h"
#include "recipes/language/recipe.h"
#include "recipes/folder/run_folder.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/label_cache.h"
#include "src/data/loader.h"

namespace coppice {

struct ScoreRow;
struct HfSettings;

struct StageContext {
  const Recipe& recipe;
  const Stage& stage;
  RunFolder& run;
  const PreparedData& data;
  std::string fingerprint;
  Json identity;

  std::filesystem::path folder() const { return run.stage(stage.name); }
  std::filesystem::path model_folder(const std::string& stage_name) const { return run.stage(stage_name) / "model"; }
};

struct StageRow {
  const char* kind;
  Json (*run)(StageContext&);  // returns the body of the manifest: tokens, results
  void (*check)(const BeforeWork&, const Stage& stage) =
      nullptr;  // refuses before the first stage what `run` would refuse; nullptr: the recipe said it all
};

Json run_train(StageContext& context);
Json run_import(StageContext& context);
Json run_learn_masks(StageContext& context);
Json run_prune(StageContext& context);
Json run_label(StageContext& context);
Json run_evaluate(StageContext& context);
Json run_export(StageContext& context);

void check_import(const BeforeWork& before, const Stage& stage);
void check_prune(const BeforeWork& before, const Stage& stage);
void check_label(const BeforeWork& before, const Stage& stage);
void check_evaluate(const BeforeWork& before, const Stage& stage);
void check_export(const BeforeWork& before, const Stage& stage);

std::span<const StageRow> stage_table();
/// InternalError for a kind that has none.
const StageRow& stage_row(const std::string& kind);

inline constexpr const char* kHfSettingsFile =
    "hf_settings.json";  // of an import stage: what its folder said beside weights and ids
/// What an export of that stage's model writes again; nothing for a model that began here. Says in a line what it is.
std::optional<HfSettings> settings_for_export(const Recipe& recipe, const RunFolder& run,
                                              const std::string& stage_name);
/// The same of a stage's folder, by the recipe in the run around it; a warning and nothing where there is none to be
/// read.
std::optional<HfSettings> settings_for_export(const std::filesystem::path& stage_folder);
/// Which text has other ids in the tokenizer.json of this tokenizer than in SentencePiece; empty when none has.
std::string prefix_warning(const Tokenizer& tokenizer);

/// Facts that every model folder carries beside its config: stage, fingerprint, tokenizer. No versions, so that equal
/// runs write equal bytes.
Json model_facts(const StageContext& context);
/// Where a label stage's labels of a domain lie: in its own folder, or in the cache that it was told to use.
std::filesystem::path label_folder(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain);
/// What they must match: what the stage's options, its teacher and the token shards say; of labels from elsewhere
/// teacher and window rule are what they say.
LabelFingerprint label_fingerprint(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain);

/// Labels what nobody has claimed of the stage under way in `context`, until nothing is left; several processes may do
/// so. Shards labelled here.
struct LabelledShards {
  size_t here = 0, total = 0;
  uint64_t tokens = 0;  // of all shards
  int64_t batch_tokens = 0;
};
LabelledShards label_shards(const StageContext& context);
inline constexpr int64_t kCheckSeqLen = 128;  // of the windows that masked and pruned models are compared on
/// A fixed sample of held-out windows as decoder inputs: logits of two models are compared on it.
std::vector<Batch> check_batches(const PreparedData& data, int64_t seq_len, int64_t windows);

/// Calibration text is drawn from every domain by the weights of [[data.domain]], whatever a stage trains on, in
/// windows of this many tokens.
inline constexpr int64_t kCalibrationSeqLen = 256;
/// Imports, and label stages whose labels come from elsewhere, with what they need: only reading them tells whether
/// their values can be used, which should not wait until something has been trained.
std::set<std::string> taken_over_stages(const Recipe& recipe);
std::vector<MixtureEntry> calibration_mixture(const Recipe& recipe);
/// Whether the stage's scores are measured on calibration text.
bool needs_calibration(const PruneStage& prune);
/// A sample of training windows, as many as `tokens` ask for: what activation scores are measured on.
std::vector<Batch> calibration_batches(const StageContext& context, int64_t tokens);
/// FLOPs of a score's passes over such a sample.
double calibration_flops(const ModelConfig& config, const ScoreRow& score, int64_t tokens);

}  // namespace coppice
