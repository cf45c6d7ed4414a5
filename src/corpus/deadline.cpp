#include "src/corpus/deadline.h"

#include <ctime>
#include <limits>

namespace coppice {
namespace {

thread_local double deadline_s = std::numeric_limits<double>::infinity();

double thread_cpu_s() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

void set_deadline(double seconds) {
  deadline_s = seconds > 0 ? thread_cpu_s() + seconds : std::numeric_limits<double>::infinity();
}

bool past_deadline() { return thread_cpu_s() > deadline_s; }

void check_deadline() {
  if (past_deadline()) throw DocumentTimeout();
}

}  // namespace coppice
