#include "src/corpus/run/step_times.h"

#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/base/log.h"

namespace coppice {
namespace {

constexpr double kWorthALine = 1;  // CPU second

}  // namespace

void StepTimes::add(const std::vector<StepTime>& times) {
  const std::lock_guard lock(guard_);
  if (times_.empty()) {
    times_ = times;
    return;
  }
  COPPICE_CHECK(times.size() == times_.size(), "files of one pass go through the same steps");
  for (size_t i = 0; i < times.size(); ++i) {
    times_[i].seconds += times[i].seconds;
    times_[i].text_bytes += times[i].text_bytes;
  }
}

std::string StepTimes::text() const {
  const std::lock_guard lock(guard_);
  double seconds = 0;
  for (const StepTime& of : times_) seconds += of.seconds;
  if (seconds < kWorthALine) return "";
  std::string text;
  for (const StepTime& of : times_)
    if (of.text_bytes > 0 && of.seconds > 0)
      text += fmt::format("{}{} {} ({:.1f} MB/s)", text.empty() ? "CPU time: " : ", ", of.step,
                          format_duration(of.seconds), static_cast<double>(of.text_bytes) / 1e6 / of.seconds);
  return text;
}

}  // namespace coppice
