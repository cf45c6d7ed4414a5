// A limit on the time that one page may take.
#pragma once

#include <ctime>

namespace coppice {

/// Seconds of this thread's processor time: how busy the machine is does not decide.
class Deadline {
 public:
  Deadline() = default;
  explicit Deadline(double seconds) : end_(now() + seconds) {}
  bool has_passed() const { return now() > end_; }
  double seconds_left() const { return end_ - now(); }  // below 0 where it has passed

 private:
  static double now() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  double end_ = 0;
};

}  // namespace coppice
