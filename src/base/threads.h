// How many threads a run takes, and how they wait for one another.
#pragma once

#include <string>

namespace coppice {

/// What this process may use at once: `cores` of its affinity mask (taskset, a cpuset), `quota` CPUs of its control
/// groups (infinity: none).
struct Processors {
  int cores = 1;
  double quota = 0;

  /// Threads that run at the same time all the time: the cores, or the quota where that is less, rounded down, at
  /// least 1.
  int usable() const;
};
Processors find_processors();

/// The recipe's `threads`; where that is 0, OMP_NUM_THREADS; 0 when neither says a number.
int asked_threads(int recipe_threads);
/// The threads asked for; otherwise all that are usable.
int choose_threads(int recipe_threads);

/// "2 threads (4 cores, CPU quota 2.0)", with who asked for them; "3 x 2 threads (..)" of several processes.
std::string threads_text(int recipe_threads, int threads, int processes, const Processors& processors);
/// Why these are too many for the processors; "" when they are not.
std::string threads_warning(int threads, int processes, const Processors& processors);

/// Starts this program again (same process, same arguments) with GOMP_SPINCOUNT set, unless the user has a setting of
/// that kind. libgomp reads it when it is loaded, so this belongs before the initialisers of all libraries:
/// COPPICE_BOUND_SPINNING in the file of main. Returns where nothing is to be done or /proc is missing.
void bound_spinning(int argc, char** argv, char** variables);
#define COPPICE_BOUND_SPINNING                                                                                      \
  __attribute__((section(".preinit_array"), used)) static void (*const bound_spinning_first)(int, char**, char**) = \
      coppice::bound_spinning

}  // namespace coppice
