// What a recipe will cost, before anything starts: parameters, tokens, FLOPs, memory, disk and time per stage, from the
// formulas the report compares with.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/stages/stage_cost.h"

namespace coppice {

struct RecipeCost {
  std::vector<StageCost> stages;
  double memory_bytes = 0;  // the largest stage
  double disk_bytes = 0;    // what stays of all stages, and the checkpoints of one
};

/// Size of the corpus files as they lie on disk.
struct CorpusBytes {
  double bytes;
  bool is_whole;  // every domain has some
  CorpusBytes(double bytes_, bool is_whole_) : bytes(bytes_), is_whole(is_whole_) {}
  CorpusBytes(double bytes_) : CorpusBytes(bytes_, bytes_ > 0) {}  // all of it, or nothing yet
};
/// Of the files that exist; a warning for each that does not.
CorpusBytes corpus_bytes(const Recipe& recipe);
/// `gemm_gflops` 0 = no time estimate.
RecipeCost estimate_cost(const Recipe& recipe, const CorpusBytes& corpus, double gemm_gflops);
/// What is still to come of a run in `run_root`: stages named in `done` cost nothing any more, begun ones what they
/// lack.
RecipeCost remaining_cost(const RecipeCost& cost, const std::filesystem::path& run_root,
                          const std::vector<std::string>& done);
/// Refuses with the numbers what cannot fit: exit 4 for disk, 7 for memory.
void check_fits(const RecipeCost& cost, const std::filesystem::path& run_root);
/// Tokens of each domain by the size of its files, for the warnings of a plan.
CorpusTokens estimate_tokens(const Recipe& recipe);
/// `text: about 9.57M tokens to train on, 416k held out, 416k for tuning`, and a line's end; empty without text.
std::string split_line(const CorpusTokens& corpus);
/// The table that `coppice plan` prints.
std::string cost_table(const Recipe& recipe, const RecipeCost& cost);

}  // namespace coppice
