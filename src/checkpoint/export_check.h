// What every export does with what it wrote before it is put in place: reads it back and compares logits.
#pragma once

#include <span>

#include "src/model/decoder.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// The fixed prompts: prose, code, digits, characters without pieces of their own.
std::span<const char* const> check_prompts();
/// Largest absolute difference over all logits of the prompts' first 64 tokens; infinite where one is not finite.
double max_logit_difference(const Model& ours, const Model& theirs, const Tokenizer& tokenizer);

}  // namespace coppice
