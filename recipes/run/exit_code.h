// Where exceptions become one line and an exit code: once for the program, once for each process that an ablation
// starts.
#pragma once

#include <functional>

namespace coppice {

/// Runs `body` and returns what it returns; a thrown error is printed to stderr and becomes its exit code.
int run_guarded(const std::function<int()>& body);

}  // namespace coppice
