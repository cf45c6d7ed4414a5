// Runs a recipe: refuses early what can be refused, then prepares data and runs each stage that is not finished,
// rewriting the report after each.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "recipes/stages/context.h"

namespace coppice {

struct RunRequest {
  std::string recipe_file;
  std::vector<Override> overrides;
  std::vector<std::string> unset;
  std::filesystem::path out;  // empty: runs/<recipe name>
  bool rerun = false;         // move changed stages aside and run them again
  bool fresh = false;         // refuse a folder that already holds a run
  std::vector<std::string>
      allow_change;  // <stage>.<key>: training goes on from its checkpoint under these as they now are
};

/// Imports, and label stages whose labels come from elsewhere, with what they need: only reading them tells whether
/// their values can be used, which should not wait until something has been trained.
std::set<std::string> taken_over_stages(const Recipe& recipe);
std::filesystem::path run_root(const RunRequest& request, const Recipe& recipe);
/// Same command, same folder goes on; throws Stopped after a signal. Results go to stdout.
void run_recipe(const RunRequest& request);
/// One stage from begin to manifest: what run and ablate do alike. Seconds and peak memory go to run.json. Throws
/// Stopped with a checkpoint saved.
void run_stage(const Recipe& recipe, const Stage& stage, RunFolder& run, const PreparedData& data,
               const std::string& fingerprint, const Json& identity);
/// What a finished stage needs no more, unless it keeps it.
void remove_checkpoints(const Stage& stage, const std::filesystem::path& folder);
/// Before the first stage: refuses a domain without one whole window of a stage that draws from it, a mixture that
/// max_epochs exhausts too early, and held-out text without a window to evaluate on. Returns what is legal and worth a
/// warning: domains that drop out of an evaluation, and corpus_warnings().
std::vector<std::string> check_windows(const Recipe& recipe, const PreparedData& data);
/// Labels shards of a label stage that another process's run is at, without its lock, until none is left; a shard whose
/// holder is killed is taken over. One line on stdout: `31 of 70 shards labelled here`.
void join_labels(const RunRequest& request, const std::string& stage);
/// Only the data of a recipe: tokenizer, shards, held-out split.
void tokenize_recipe(const RunRequest& request);

}  // namespace coppice
