// Limits that Linux control groups put on this process. /proc/self/cgroup says which groups it is in,
// /proc/self/mountinfo where their files are; a group gets no more than any group above it, so all folders from the
// mount down to the process' own count. Version 1 has a hierarchy for each controller, version 2 one for all, and both
// may be mounted at once: each controller then has files in one of them. Nothing here fails: what is missing, "max" or
// no number is no limit.
#include "src/base/control_groups.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// The first `count` words of a file as numbers; NaN for a word that is missing or no number.
std::vector<double> numbers_in(const fs::path& path, size_t count = 1) {
  std::vector<double> numbers(count, std::nan(""));
  std::ifstream file(path);
  std::string word;
  for (size_t i = 0; i < count && file >> word; ++i) {
    double number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error == std::errc() && end == word.data() + word.size()) numbers[i] = number;
  }
  return numbers;
}

bool contains_word(const std::string& list, std::string_view word) {
  std::istringstream words(list);
  for (std::string one; std::getline(words, one, ',');)
    if (one == word) return true;
  return false;
}

/// The process' group in the hierarchy of a controller of version 1, or in that of version 2 (""); "" when it is in
/// none.
std::string group_of(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // <id>:<controllers>:<group>
    const size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : contains_word(controllers, controller))
      return line.substr(second + 1);
  }
  return "";
}

/// mountinfo writes a space as \040.
std::string unescaped(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\\' && i + 3 < text.size()) {
      plain += static_cast<char>(std::strtol(text.substr(i + 1, 3).c_str(), nullptr, 8));
      i += 3;
    } else {
      plain += text[i];
    }
  return plain;
}

/// Folders of the process' group and of those above it, in every mount of the hierarchy. A mount may show a part of it
/// alone (a container's own group as its root); a group outside that part is taken as seen from the mount, where at
/// least the mount itself exists.
std::vector<fs::path> group_folders(const fs::path& root, std::string_view controller) {
  std::vector<fs::path> folders;
  const std::string group = group_of(root, controller);
  if (group.empty()) return folders;
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(
           file,
           line);) {  // <id> <parent> <device> <root> <mount> <options> [<more> ...] - <type> <source> <super options>
    std::istringstream words(line);
    std::string top, mount, word, type, options;
    words >> word >> word >> word >> top >> mount;
    while (words >> word && word != "-") {
    }
    words >> type >> word >> options;
    if (controller.empty() ? type != "cgroup2" : type != "cgroup" || !contains_word(options, controller)) continue;
    top = unescaped(top);
    const bool shown = top == "/" || group == top || group.starts_with(top + "/");
    const fs::path inside = shown && top != "/" ? group.substr(top.size()) : group;
    fs::path folder = root / fs::path(unescaped(mount)).relative_path();
    folders.push_back(folder);
    for (const fs::path& part : inside.relative_path()) {
      if (part == "..") break;  // a group outside this process' namespace
      folders.push_back(folder /= part);
    }
  }
  return folders;
}

void take_cpus(GroupLimits& limits, double quota_us, double period_us) {
  if (quota_us > 0 && period_us > 0) limits.cpus = std::min(limits.cpus, quota_us / period_us);
}

void take_memory(GroupLimits& limits, double limit, double used, double droppable) {
  if (!std::isfinite(limit) || limit >= 0x1p62 || !std::isfinite(used))
    return;  // version 1 says "no limit" by the largest number of pages
  limits.memory_bytes =
      std::min(limits.memory_bytes, std::max(0.0, limit - used + (std::isnan(droppable) ? 0 : droppable)));
}

}  // namespace

double value_in(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::strtod(line.c_str() + key.size(), nullptr);
  return std::nan("");
}

GroupLimits control_group_limits(const fs::path& root) {
  GroupLimits limits;
  for (const fs::path& folder : group_folders(root, "")) {
    const std::vector<double> cpu = numbers_in(folder / "cpu.max", 2);
    take_cpus(limits, cpu[0], cpu[1]);
    take_memory(limits, numbers_in(folder / "memory.max")[0], numbers_in(folder / "memory.current")[0],
                value_in(folder / "memory.stat", "inactive_file "));
  }
  for (const fs::path& folder : group_folders(root, "cpu"))
    take_cpus(limits, numbers_in(folder / "cpu.cfs_quota_us")[0], numbers_in(folder / "cpu.cfs_period_us")[0]);
  for (const fs::path& folder : group_folders(root, "memory"))
    take_memory(limits, numbers_in(folder / "memory.limit_in_bytes")[0],
                numbers_in(folder / "memory.usage_in_bytes")[0],
                value_in(folder / "memory.stat", "total_inactive_file "));
  return limits;
}

}  // namespace coppice
