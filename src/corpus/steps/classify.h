// classify: the score of a model for every document, and which go by it. A language model is opened by whoever knows
// checkpoints, which this folder does not.
#pragma once

#include "src/corpus/classify/text_model.h"

namespace coppice {

/// From now on a `model` that is a folder or a .gguf is opened by this; without one it is refused. For main(), before
/// any recipe is read.
void set_language_model_opener(LanguageModelOpener open);

}  // namespace coppice
