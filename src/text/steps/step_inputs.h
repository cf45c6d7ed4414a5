// Which files a step reads.
#pragma once

#include <string>
#include <vector>

#include "src/text/steps/run_step.h"

namespace coppice {

/// Every file below the inputs that the step reads, sorted by name, or by the names' sample_hash. Links are not
/// followed. UserError::recipe for two files of one name, UserError::bad_file for an input that is missing or of
/// another kind.
std::vector<InputFile> list_inputs(const StepRow& step, const StepOptions& options, bool by_hash);

/// By the sample_hash of a name or id, then by itself.
bool comes_first_by_hash(const std::string& a, const std::string& b);

}  // namespace coppice
