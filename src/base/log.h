// What a person sees while coppice works: messages and one live progress line on stderr, the same lines in log.txt.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice {

enum class LogStyle { automatic, plain, json, quiet };  // automatic: one live line on a terminal, plain lines elsewhere

/// Program-wide: how to print, and the file that also gets every line (empty = none).
void set_log_style(LogStyle style);
void set_log_file(const std::filesystem::path& path);

void log_info(std::string_view message);
void log_warning(std::string_view message);  // also counted, see num_warnings()
void log_error(std::string_view message);    // what ends the program: `coppice: message`, in every style
int64_t num_warnings();

/// One stage's progress: `[stage] step 120/800  loss 3.214  12.3k tok/s  58% of GEMM  ETA 0:41`.
/// On a terminal the line is rewritten in place (at most 5 times a second) and cut to its width; elsewhere a plain line
/// every 10 s; with --json an object every 10 s. The log file gets the plain line every 10 s in any case. The time left
/// is judged by this process' own pace.
class Progress {
 public:
  Progress(std::string name, uint64_t total, std::string unit);  // unit: "step", "shard", "document"
  ~Progress();                                                   // ends the live line
  /// `done` of `total` (0 = unknown); `notes` are shown in order: ("loss", "3.214") as `loss 3.214`, ("", "12.3k
  /// tok/s") as it stands.
  void update(uint64_t done, const std::vector<std::pair<std::string, std::string>>& notes);
  /// Ends the line with a last message `[stage] summary`.
  void finish(std::string_view summary);

 private:
  std::string text(uint64_t done, const std::vector<std::pair<std::string, std::string>>& notes, double eta_s) const;

  std::string name_, unit_;
  uint64_t total_ = 0, first_done_ = 0;
  bool started_ = false, finished_ = false;
  double begin_s_ = 0, last_print_s_ = -1e9, last_file_s_ = -1e9;
};

/// The first `width` columns of UTF-8 text, one column a code point; what is cut ends in "...".
std::string fit_width(std::string_view text, size_t width);

double monotonic_s();                         // seconds of a steady clock
std::string format_duration(double seconds);  // 0:41, 12:03, 3:04:05
std::string format_count(double value);       // 812, 12.3k, 1.20M, 6.39B
std::string format_bytes(double bytes);       // 512 B, 1.2 MiB, 33.0 GiB

}  // namespace coppice
