// A recipe's own corpus: what its sources and steps make, before anything is tokenized.
#pragma once

#include "recipes/language/recipe.h"

namespace coppice {

/// Makes the corpus that [[data.source]] and [[data.step]] describe, or goes on with it; does nothing where the recipe
/// has none, or where it is gone and the run has recorded what it held. A domain of several sources gets a folder of
/// links to their documents. Throws Stopped on a stop request; errors as run_corpus().
void make_corpus(const Recipe& recipe);

}  // namespace coppice
