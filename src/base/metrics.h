// metrics.jsonl: one flat object per step, floats with 9 significant digits, so that a resume test can compare text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace coppice {

class OutputFile;

/// The keys of one line in the order they are written; integers stay integers, non-finite numbers become "nan", "inf",
/// "-inf".
class MetricsLine {
 public:
  void add(std::string key, int64_t value);
  void add(std::string key, double value);
  std::string to_json() const;  // no newline

 private:
  std::vector<std::pair<std::string, std::string>> fields_;  // key, JSON text of the value
};

/// Keys whose values depend on the clock; they stand last and are left out of comparisons.
inline constexpr const char* kWallClockKeys[] = {"tok_s", "mfu", "t"};

/// Appends lines with one write each. On opening for a resume at `last_step`: a torn last line is cut, lines with a
/// later `step` move to <stem>.cut.jsonl, the rest stays. IoError on failure.
class MetricsWriter {
 public:
  MetricsWriter(const std::filesystem::path& path, int64_t last_step);
  ~MetricsWriter();
  void append(const MetricsLine& line);
  void sync();  // before the checkpoint of the same step is committed

 private:
  std::unique_ptr<OutputFile> file_;
};

/// All whole lines of a metrics file as key -> value per line (non-numbers are NaN or +-inf); an absent file is empty.
std::vector<std::map<std::string, double>> read_metrics(const std::filesystem::path& path);

}  // namespace coppice
