// The steps of `coppice data`. A new one is a file with its functions and a row.
#pragma once

#include <span>

#include "src/text/steps/run_step.h"

namespace coppice {

std::span<const StepRow> step_table();

}  // namespace coppice
