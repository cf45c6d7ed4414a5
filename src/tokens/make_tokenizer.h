// The tokenizer of a run: trained, or taken from elsewhere.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {

/// The tokenizer of `folder` where one stands already; else a copy of the one that the options name, which `given`
/// returns, or one trained on `texts`, in a process of its own: the caller must not have used torch's threads.
/// UserError::recipe for another vocab_size than the options ask for; throws Stopped on a stop request.
Tokenizer make_tokenizer(const TokenizerOptions& options, const std::function<const Tokenizer&()>& given,
                         const std::filesystem::path& folder, const std::vector<std::string>& texts);

}  // namespace coppice
