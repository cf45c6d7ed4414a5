// The step `extract`: files of HTML, text, source code and dictionaries become documents with stable ids, source and
// licence.
#pragma once

#include <filesystem>
#include <functional>
#include <vector>

#include "src/text/steps/run_step.h"

namespace coppice {

bool is_extractable(const std::filesystem::path& path);
/// One document a file, named like it; of a dictionary many, `<name>#<number>`.
void read_extractable(const InputFile& file, const StepOptions& options, const std::function<void(Document&&)>& take);
/// Drops what is no text worth training on (rejection_reason), what does not fit, and texts that came before.
std::vector<MapStep> extract_chain(const StepOptions& options, const StepReport& so_far);

}  // namespace coppice
