// classify: the score of a model for every document, and which go by it.
#pragma once

#include <memory>

#include "src/corpus/classify/text_model.h"
#include "src/corpus/step.h"

namespace coppice {

/// The step that the options of its [[data.step]] describe. A `model` that is a folder is opened by
/// `open_language_model`; without one it is refused.
std::shared_ptr<const Step> read_classify_step(OptionTable& table, const LanguageModelOpener& open_language_model);

}  // namespace coppice
