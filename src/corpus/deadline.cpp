#include "src/corpus/deadline.h"

#include <ctime>
#include <limits>

namespace coppice {
namespace {

thread_local double deadline_s = std::numeric_limits<double>::infinity();

}  // namespace

double thread_cpu_s() {
  timespec now = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void set_deadline(double at) { deadline_s = at; }

void check_deadline() {
  if (thread_cpu_s() > deadline_s) throw DocumentTimeout();
}

}  // namespace coppice
