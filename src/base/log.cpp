// One lock and one state for everything printed: a message clears the live line, prints itself, and the live line is
// drawn again below it. Neither a full disk under log.txt nor a closed terminal stops the work.
#include "src/base/log.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"

namespace coppice {
namespace {

constexpr double kLiveEvery_s = 0.2, kLineEvery_s = 10;

struct LogState {
  std::mutex guard;
  LogStyle style = LogStyle::automatic;
  std::unique_ptr<OutputFile> file;
  std::string live;  // what stands on the live line now; empty = none
  int64_t warnings = 0;
};

LogState& state() {
  static LogState* const only = new LogState;  // never destroyed: a thread may log while the process ends
  return *only;
}

/// Standard error as it is: what cannot be printed is not worth an error.
void put(std::string_view text) {
  while (!text.empty()) {
    const ssize_t done = ::write(STDERR_FILENO, text.data(), text.size());
    if (done <= 0) return;
    text.remove_prefix(static_cast<size_t>(done));
  }
}

bool has_terminal() {
  const char* kind = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && kind != nullptr && std::string_view(kind) != "dumb";
}

bool live_lines(const LogState& log) { return log.style == LogStyle::automatic && has_terminal(); }

size_t terminal_width() {
  struct winsize size = {};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
}

void clear_live(LogState& log) {
  if (!log.live.empty()) put("\r\x1b[K");
}

void draw_live(LogState& log) {
  if (!log.live.empty()) put(fmt::format("\r{}\x1b[K", fit_width(log.live, terminal_width() - 1)));
}

void to_file(LogState& log, std::string_view line) {
  if (!log.file) return;
  try {
    log.file->write(std::string(line) + "\n");
  } catch (const Error& error) {
    log.file.reset();  // once, then without: a full disk is reported by whoever writes something that matters
    ++log.warnings;
    clear_live(log);
    put(fmt::format("warning: the log file is given up: {}\n", error.what()));
    draw_live(log);
  }
}

std::string to_text(const Json& object) { return object.dump(-1, ' ', false, Json::error_handler_t::replace); }

void print_message(std::string_view level, std::string_view message) {
  LogState& log = state();
  const std::lock_guard lock(log.guard);
  const bool warning = level == "warning";
  if (warning) ++log.warnings;
  const bool error = level == "error";
  const std::string line = (error ? "coppice: " : warning ? "warning: " : "") + printable_lines(message);
  if (log.style == LogStyle::json) {
    put(to_text({{"event", "message"}, {"level", level}, {"message", message}}) + "\n");
  } else if (error || warning || log.style != LogStyle::quiet) {
    clear_live(log);
    put(line + "\n");
    draw_live(log);
  }
  to_file(log, line);
}

}  // namespace

void set_log_style(LogStyle style) {
  LogState& log = state();
  const std::lock_guard lock(log.guard);
  log.style = style;
}

void set_log_file(const std::filesystem::path& path) {
  LogState& log = state();
  auto file = path.empty() ? nullptr : std::make_unique<OutputFile>(path, OutputFile::Mode::append);
  const std::lock_guard lock(log.guard);
  log.file = std::move(file);
}

void log_info(std::string_view message) { print_message("info", message); }
void log_warning(std::string_view message) { print_message("warning", message); }
void log_error(std::string_view message) { print_message("error", message); }

int64_t num_warnings() {
  LogState& log = state();
  const std::lock_guard lock(log.guard);
  return log.warnings;
}

Progress::Progress(std::string name, uint64_t total, std::string unit)
    : name_(std::move(name)), unit_(std::move(unit)), total_(total) {}

Progress::~Progress() {
  LogState& log = state();
  const std::lock_guard lock(log.guard);
  if (finished_ || log.live.empty()) return;
  put("\n");  // an error ends the stage: its last line stays to be read
  log.live.clear();
}

std::string Progress::text(uint64_t done, const std::vector<std::pair<std::string, std::string>>& notes,
                           double eta_s) const {
  std::string line = total_ > 0 ? fmt::format("[{}] {} {}/{}", name_, unit_, done, total_)
                                : fmt::format("[{}] {} {}", name_, unit_, done);
  for (const auto& [key, value] : notes) line += key.empty() ? "  " + value : "  " + key + " " + value;
  if (eta_s >= 0) line += "  ETA " + format_duration(eta_s);
  return printable(line);
}

void Progress::update(uint64_t done, const std::vector<std::pair<std::string, std::string>>& notes) {
  const double now = monotonic_s();
  if (!started_) {
    started_ = true;
    first_done_ = done;
    begin_s_ = now;
    last_print_s_ = last_file_s_ = now - kLineEvery_s + 1;  // the first plain line after a second, not after ten
  }
  LogState& log = state();
  const std::lock_guard lock(log.guard);
  const bool live = live_lines(log), last = total_ > 0 && done == total_;
  const bool print =
      log.style != LogStyle::quiet && (last || now - last_print_s_ >= (live ? kLiveEvery_s : kLineEvery_s));
  const bool file = log.file != nullptr && (last || now - last_file_s_ >= kLineEvery_s);
  if (!print && !file) return;

  double eta_s = -1;
  if (done > first_done_ && done < total_)
    eta_s = (now - begin_s_) / static_cast<double>(done - first_done_) * static_cast<double>(total_ - done);
  const std::string line = text(done, notes, eta_s);
  if (print) {
    last_print_s_ = now;
    if (log.style == LogStyle::json) {
      Json object = {{"event", "progress"}, {"stage", name_}, {"unit", unit_}, {"done", done}, {"total", total_}};
      for (const auto& [key, value] : notes) object["notes"].push_back(key.empty() ? value : key + " " + value);
      if (eta_s >= 0) object["eta_s"] = std::round(eta_s);
      put(to_text(object) + "\n");
    } else if (live) {
      log.live = line;
      draw_live(log);
    } else {
      put(line + "\n");
    }
  }
  if (file) {
    last_file_s_ = now;
    to_file(log, line);
  }
}

void Progress::finish(std::string_view summary) {
  {
    LogState& log = state();
    const std::lock_guard lock(log.guard);
    finished_ = true;
    clear_live(log);
    log.live.clear();
  }
  log_info(fmt::format("[{}] {}", name_, summary));
}

std::string fit_width(std::string_view text, size_t width) {
  const auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  size_t columns = 0, keep = text.size();  // keep: the byte where column width - 3 begins
  for (size_t i = 0; i < text.size(); ++i) {
    if (!starts(text[i])) continue;
    if (columns + 3 == width) keep = i;
    ++columns;
  }
  if (columns <= width) return std::string(text);
  return width < 3 ? std::string(width, '.') : std::string(text.substr(0, keep)) + "...";
}

double monotonic_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const int64_t s = std::llround(seconds);
  if (s < 3600) return fmt::format("{}:{:02}", s / 60, s % 60);
  return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

std::string format_count(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  constexpr const char* kUnits[] = {"", "k", "M", "B", "T"};
  double scaled = value;
  size_t unit = 0;
  for (; std::abs(scaled) >= 999.5 && unit + 1 < std::size(kUnits); ++unit)
    scaled /= 1000;  // 999,500 shows as 1.00M, never as 1000k
  if (unit == 0) return fmt::format("{}", std::round(value * 10) / 10);
  const double size = std::abs(scaled);
  if (unit == 1) return fmt::format("{:.{}f}k", scaled, size < 99.95 ? 1 : 0);
  return fmt::format("{:.{}f}{}", scaled, size < 9.995 ? 2 : size < 99.95 ? 1 : 0, kUnits[unit]);
}

std::string format_bytes(double bytes) {
  if (!std::isfinite(bytes)) return fmt::format("{}", bytes);
  if (std::abs(bytes) < 1024) return fmt::format("{:.0f} B", bytes);
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  for (bytes /= 1024; std::abs(bytes) >= 1023.95 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1024;
  return fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

}  // namespace coppice
