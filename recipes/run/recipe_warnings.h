// Settings that act otherwise than they look, or not at all: legal, so no refusal, and never silent. One list for
// config, plan, run and ablate.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"

namespace coppice {

/// What the recipe alone tells, a line each, every matter once.
std::vector<std::string> recipe_warnings(const Recipe& recipe);

/// Tokens that a recipe's text has: counted, or estimated from the size of its files.
struct CorpusTokens {
  std::map<std::string, double> train;  // by domain
  double heldout = 0, tuning = 0;
  std::vector<std::string> unmade;  // domains of a corpus that is not made yet: nothing is known of their text
};
/// What its text tells beside it.
std::vector<std::string> corpus_warnings(const Recipe& recipe, const CorpusTokens& corpus);

/// Each different line once, whatever number of arms it comes from: to the log, and as lines of a verb's result.
void log_warnings(const std::vector<std::string>& lines);
std::string warnings_text(const std::vector<std::string>& lines);

}  // namespace coppice
