// The armed faults of this process: read from the environment at the first use, looked up under one lock. An unarmed
// process pays one atomic load.
#include "src/base/failpoint.h"

#ifdef COPPICE_WITH_FAILPOINTS

#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/base/errors.h"

namespace coppice {
namespace {

enum class Action { abort, error, sleep, nan };

struct Failpoint {
  std::string name;
  Action action = Action::abort;
  double sleep_s = 0;
  uint64_t hit = 1;   // fires at this hit
  uint64_t seen = 0;  // hits so far
};

std::mutex guard;
std::once_flag environment_once;
std::atomic<bool> armed{false};
std::vector<Failpoint> points;                  // under guard
std::atomic<uint64_t> io_calls{0}, io_last{0};  // io_last 0 = not armed
std::function<void(std::string_view, const std::filesystem::path&)> io_observer;

template <class Number>
bool parse_number(std::string_view text, Number& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size();
}

Failpoint parse_point(std::string_view text) {
  const auto refuse = [&](const char* why) {
    return UserError::recipe("COPPICE_FAILPOINTS",
                             fmt::format("'{}': {}; expected name=abort|error|sleep:<seconds>|nan[@hit]", text, why));
  };
  Failpoint point;
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) throw refuse("no name");
  point.name = text.substr(0, equals);
  std::string_view action = text.substr(equals + 1);
  if (const size_t at = action.find('@'); at != std::string_view::npos) {
    if (!parse_number(action.substr(at + 1), point.hit) || point.hit == 0) throw refuse("the hit is no number from 1");
    action = action.substr(0, at);
  }
  if (action == "abort") {
    point.action = Action::abort;
  } else if (action == "error") {
    point.action = Action::error;
  } else if (action == "nan") {
    point.action = Action::nan;
  } else if (action.starts_with("sleep:") && parse_number(action.substr(6), point.sleep_s) && point.sleep_s >= 0) {
    point.action = Action::sleep;
  } else {
    throw refuse("unknown action");
  }
  return point;
}

void arm(std::string_view spec, uint64_t fail_after_io) {
  std::vector<Failpoint> parsed;
  while (!spec.empty()) {
    const size_t comma = spec.find(',');
    parsed.push_back(parse_point(spec.substr(0, comma)));
    spec = comma == std::string_view::npos ? std::string_view() : spec.substr(comma + 1);
  }
  const std::lock_guard lock(guard);
  points = std::move(parsed);
  io_calls = 0;
  io_last = fail_after_io;
  armed = !points.empty();
}

void read_environment() {
  std::call_once(environment_once, [] {
    const char* spec = std::getenv("COPPICE_FAILPOINTS");
    const char* after = std::getenv("COPPICE_FAIL_AFTER_IO");
    uint64_t calls = 0;
    if (after != nullptr && !parse_number(std::string_view(after), calls))
      throw UserError::recipe("COPPICE_FAIL_AFTER_IO",
                              fmt::format("got '{}', expected a number of system calls", after));
    arm(spec == nullptr ? "" : spec, calls);
  });
}

}  // namespace

bool failpoint(const char* name) {
  read_environment();
  if (!armed.load(std::memory_order_relaxed)) return false;
  Failpoint fired;
  {
    const std::lock_guard lock(guard);
    for (Failpoint& point : points)
      if (point.name == name && ++point.seen == point.hit) fired = point;
  }
  if (fired.name.empty()) return false;
  switch (fired.action) {
    case Action::abort:
      raise(SIGKILL);
      break;
    case Action::error:
      throw IoError(fmt::format("failpoint {}", name), "error on demand", EIO);
    case Action::sleep:
      std::this_thread::sleep_for(std::chrono::duration<double>(fired.sleep_s));
      break;
    case Action::nan:
      return true;
  }
  return false;
}

void count_io_call(const char* name, const std::filesystem::path& path) {
  read_environment();
  if (io_observer) io_observer(name, path);
  const uint64_t last = io_last.load(std::memory_order_relaxed);
  if (last != 0 && io_calls.fetch_add(1) + 1 == last) raise(SIGKILL);
}

void set_io_observer(std::function<void(std::string_view, const std::filesystem::path&)> observer) {
  io_observer = std::move(observer);
}

void set_failpoints(std::string_view spec, uint64_t fail_after_io) {
  read_environment();
  arm(spec, fail_after_io);
}

}  // namespace coppice

#endif
