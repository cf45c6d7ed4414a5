// What steps cost: said when a pass is done, and no part of a report, whose bytes are the same on every machine.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace coppice {

/// Of one step: CPU seconds, and the text that it has looked at.
struct StepTime {
  std::string step;
  double seconds = 0;
  uint64_t text_bytes = 0;
};

/// Of all files of a pass that this process has gone through.
class StepTimes {
 public:
  void add(const std::vector<StepTime>& times);
  /// "CPU time: extract 1:12 (31.4 MB/s), quality 0:40 (18.0 MB/s)"; empty below a second.
  std::string text() const;

 private:
  mutable std::mutex guard_;
  std::vector<StepTime> times_;  // in the order of the steps
};

}  // namespace coppice
