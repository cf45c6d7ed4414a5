// A language model as a classifier of text: how well it predicts a document (Moore and Lewis, ACL 2010; the mathematics
// of OpenWebMath, arXiv 2310.06786, was chosen by such a score, too).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "src/corpus/classify/text_model.h"

namespace coppice {

inline constexpr int64_t kScoredTokens = 1024;

/// The model at `path`, as open_model() takes it and with its refusals. Its score of a text is the log-probability in
/// bits of the first kScoredTokens tokens (fewer where it knows fewer positions) behind what begins a text, as
/// prompt_ids() has it of an empty prompt, over their bytes: minus the bits a byte. NaN for an empty text. Weights are
/// read before the first score; each is computed by one thread, and several threads may score at once: whoever trains
/// afterwards calls start_torch().
std::shared_ptr<const TextModel> open_language_model(const std::filesystem::path& path);

}  // namespace coppice
