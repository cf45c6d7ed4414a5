// How many threads a run takes, and how they wait for one another.
//
// The threads of an OpenMP team meet after each loop. libgomp lets whoever comes first spin for 300,000 rounds
// (milliseconds) before it sleeps: on idle cores that saves a wake-up, on a core that is shared with other work it
// takes the time that the last thread needs to get there, and two threads beside one busy process got several times
// slower than one alone. With 1,000 rounds an idle machine is as fast and a shared one keeps more
// (tests/bench/README.md).
#include "src/base/threads.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "src/base/control_groups.h"

namespace coppice {
namespace {

constexpr int kMaxThreads = 4096;

std::string counted(int count, const char* noun) { return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s"); }

std::string team(int threads, int processes) {
  return (processes > 1 ? fmt::format("{} x ", processes) : "") + counted(threads, "thread");
}

}  // namespace

int Processors::usable() const {
  // Down, not up: with more threads than the quota pays for, all of them stand still for the rest of every period.
  return std::isfinite(quota) && quota < cores ? std::max(1, static_cast<int>(quota + 1e-6)) : std::max(1, cores);
}

Processors find_processors() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  return {.cores = sched_getaffinity(0, sizeof mask, &mask) == 0 ? std::max(1, CPU_COUNT(&mask)) : 1,
          .quota = control_group_limits().cpus};
}

int asked_threads(int recipe_threads) {
  const char* variable = std::getenv("OMP_NUM_THREADS");
  if (recipe_threads > 0 || variable == nullptr) return std::max(0, recipe_threads);
  const std::string_view text = variable;  // "4", or "4,2" for nested teams
  int threads = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
  const bool whole = error == std::errc() && (end == text.data() + text.size() || *end == ',');
  return whole && threads > 0 && threads <= kMaxThreads ? threads : 0;
}

int choose_threads(int recipe_threads) {
  const int asked = asked_threads(recipe_threads);
  return asked > 0 ? asked : find_processors().usable();
}

std::string threads_text(int recipe_threads, int threads, int processes, const Processors& processors) {
  std::string why = counted(processors.cores, "core");
  if (std::isfinite(processors.quota)) why += fmt::format(", CPU quota {:.1f}", processors.quota);
  if (recipe_threads > 0)
    why = fmt::format("the recipe's threads; {}", why);
  else if (asked_threads(recipe_threads) > 0)
    why = fmt::format("OMP_NUM_THREADS; {}", why);
  return fmt::format("{} ({})", team(threads, processes), why);
}

std::string threads_warning(int threads, int processes, const Processors& processors) {
  if (threads * processes <= processors.usable()) return "";
  const bool quota = std::isfinite(processors.quota) && processors.quota < processors.cores;
  return fmt::format(
      "{} are more than the {}, and every step waits for the thread that comes last: {} in all would be quicker",
      team(threads, processes),
      quota ? fmt::format("CPU quota of {:.1f}", processors.quota) : counted(processors.cores, "core"),
      processors.usable());
}

// Runs before any library is initialised (20 ms of loading are lost; the initialisers of LibTorch would be another
// 250): no getenv, no heap.
__attribute__((no_sanitize("address", "undefined"))) void bound_spinning(int, char** argv, char** variables) {
  constexpr size_t kMaxVariables = 4000;
  static char setting[] = "GOMP_SPINCOUNT=1000";
  static char* extended[kMaxVariables + 2];
  static char program[PATH_MAX];
  size_t count = 0;
  for (; variables[count] != nullptr && count < kMaxVariables; ++count) {
    for (const char* own : {"GOMP_SPINCOUNT=", "OMP_WAIT_POLICY=", "KMP_BLOCKTIME=", "KMP_LIBRARY="})
      if (std::strncmp(variables[count], own, std::strlen(own)) == 0) return;  // the second start ends here as well
    extended[count] = variables[count];
  }
  extended[count] = setting;
  const bool loader = getauxval(AT_BASE) == 0;  // it is the loader that was started, with this program as its argument
  if (loader || variables[count] != nullptr || readlink("/proc/self/exe", program, sizeof program - 1) <= 0) return;
  execve(program, argv, extended);  // by name: /proc/self/exe would show as `exe` in ps. Fails where the file has been
                                    // replaced: then as it is
}

}  // namespace coppice
