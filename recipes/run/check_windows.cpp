// What stages will ask of the token shards, checked before the first of them runs.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "recipes/language/training_options.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/run/run_recipe.h"
#include "recipes/stages/calibration.h"
#include "recipes/stages/evaluate.h"
#include "recipes/stages/prune.h"
#include "src/base/errors.h"

namespace coppice {
namespace {

/// Refuses what the loader would refuse when its stage starts.
void check_mixture(const Stage& stage, const std::string& what, const std::vector<MixtureEntry>& mixture,
                   int64_t seq_len, uint64_t samples, const PreparedData& data) {
  const std::vector<const TokenShards*> shards = data.shards_of(mixture);
  try {
    const Loader loader(shards, mixture, {.seq_len = seq_len, .stage = stage.name});
  } catch (const UserError& error) {
    throw UserError(error.code(), fmt::format("stage '{}'{}: {}", stage.name, what, error.what()));
  }
  if (std::ranges::any_of(mixture, [](const MixtureEntry& entry) { return entry.max_epochs == 0; })) return;
  std::vector<uint64_t> windows;
  for (const TokenShards* domain : shards) windows.push_back(WindowIndex(*domain, seq_len).num_windows);
  const std::vector<uint64_t> counts = mixture_counts(mixture, samples, windows);
  const uint64_t given = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  if (given < samples)
    throw UserError::recipe(stage.where, fmt::format("stage '{}': max_epochs of its domains ends after {} of {} "
                                                     "tokens; ask for fewer tokens or raise max_epochs",
                                                     stage.name, given * static_cast<uint64_t>(seq_len),
                                                     samples * static_cast<uint64_t>(seq_len)));
}

using Lines = std::vector<std::string>;

/// What texts of a split are called.
const char* words_of(const std::string& split) { return split == "tuning" ? "tuning" : "held-out"; }

/// Domains whose text of the split has a window of `seq_len`; the others are named in a warning that ends in `without`.
size_t count_present(const Stage& stage, const std::string& split, int64_t seq_len, const PreparedData& data,
                     const std::string& without, Lines& lines) {
  std::string missing;
  size_t present = 0;
  for (const auto& [domain, shards] : data.split(split)) {
    const bool has = WindowIndex(shards, seq_len).num_windows > 0;
    present += has;
    if (!has) missing += fmt::format("{}'{}'", missing.empty() ? "" : ", ", domain);
  }
  if (!missing.empty())
    lines.push_back(fmt::format("stage '{}': no {} window of {} tokens in {}: {}", stage.name, words_of(split), seq_len,
                                missing, without));
  return present;
}

void require_split(const Stage& stage, const std::string& split, int64_t seq_len, const PreparedData& data,
                   const std::string& what, const std::string& without, Lines& lines) {
  if (count_present(stage, split, seq_len, data, without, lines) == 0)
    throw UserError::recipe(
        stage.where,
        fmt::format("stage '{}': no {} text has a window of {} tokens and a target, which {} needs; {}raise "
                    "data.{}_share or give more text",
                    stage.name, words_of(split), seq_len, what, stage.kind == "evaluate" ? "lower its seq_len, " : "",
                    split));
}

/// Under document_mask positions restart with each document: what is longer than the longest is never seen.
void check_documents(const Stage& stage, const TrainingOptions& training, const PreparedData& data, Lines& lines) {
  if (!training.document_mask) return;
  uint64_t longest = 0;
  for (const TokenShards* shards : data.shards_of(training.mixture))
    for (size_t shard = 0; shard < shards->shards().size(); ++shard) {
      uint64_t begin = 0;
      for (const uint64_t end : shards->document_ends(shard)) {
        longest = std::max(longest, end - begin);
        begin = end;
      }
    }
  if (longest < static_cast<uint64_t>(training.seq_len))
    lines.push_back(
        fmt::format("stage '{}': seq_len = {} with document_mask, and the longest document has {} tokens: no position "
                    "beyond that is trained",
                    stage.name, training.seq_len, longest));
}

CorpusTokens count_tokens(const PreparedData& data) {
  CorpusTokens corpus;
  for (const auto& [domain, shards] : data.train) corpus.train[domain] = static_cast<double>(shards.num_tokens());
  for (const auto& [domain, shards] : data.heldout) corpus.heldout += static_cast<double>(shards.num_tokens());
  for (const auto& [domain, shards] : data.tuning) corpus.tuning += static_cast<double>(shards.num_tokens());
  return corpus;
}

}  // namespace

std::vector<std::string> check_windows(const Recipe& recipe, const PreparedData& data) {
  Lines lines = corpus_warnings(recipe, count_tokens(data));
  for (const Stage& stage : recipe.stages) {
    if (const TrainingOptions* training = training_of(stage)) {
      check_mixture(stage, "", training->mixture, training->seq_len,
                    static_cast<uint64_t>(training->steps() * training->rows()), data);
      if (training->eval_tokens > 0)
        count_present(stage, training->eval_split, training->seq_len, data,
                      fmt::format("no part of its {} loss", words_of(training->eval_split)), lines);
      check_documents(stage, *training, data, lines);
    }
    const auto* prune = stage.find<PruneStage>();
    if (stage.kind == "learn_masks" || (prune != nullptr && needs_calibration(*prune)))
      check_mixture(stage, " (calibration)", calibration_mixture(recipe), kCalibrationSeqLen, 0, data);
    if (prune != nullptr)
      require_split(stage, "heldout", kCheckSeqLen, data, "the comparison of masked and pruned logits",
                    "no part of the check", lines);
    if (const auto* evaluate = stage.find<EvaluateStage>())
      require_split(stage, evaluate->split, evaluate->seq_len, data, "an evaluation", "not evaluated", lines);
  }
  return lines;
}

}  // namespace coppice
