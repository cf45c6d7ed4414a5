#include "src/corpus/run/task_share.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "src/base/errors.h"

namespace coppice {
namespace {

std::optional<uint32_t> number_of(std::string_view text) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

TaskShare checked(std::optional<uint32_t> task, std::optional<uint32_t> tasks, const std::string& where,
                  const std::string& got) {
  if (!task || !tasks || *task >= *tasks)
    throw UserError::recipe(
        where, fmt::format("got '{}', expected task/tasks counted from 0, for instance 0/4 to 3/4", printable(got)));
  return {*task, *tasks};
}

struct Launcher {
  const char *task, *tasks;
};
constexpr Launcher kLaunchers[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, {"SLURM_PROCID", "SLURM_NTASKS"}};

std::optional<uint32_t> variable(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? std::nullopt : number_of(text);
}

/// Of an array that counts from any number in steps: --array=1-8, --array=0-63:4. One with gaps does not say what share
/// an index has.
TaskShare slurm_array_share() {
  const std::optional<uint32_t> id = variable("SLURM_ARRAY_TASK_ID"), count = variable("SLURM_ARRAY_TASK_COUNT");
  const uint32_t first = variable("SLURM_ARRAY_TASK_MIN").value_or(0),
                 step = std::max(variable("SLURM_ARRAY_TASK_STEP").value_or(1), 1U);
  const uint32_t last = variable("SLURM_ARRAY_TASK_MAX").value_or(first + (count.value_or(1) - 1) * step);
  if (!id || !count || *id < first || (*id - first) % step != 0 || (last - first) / step + 1 != *count)
    throw UserError::recipe("SLURM_ARRAY_TASK_ID",
                            fmt::format("got index {} of {} from {} to {}, expected an array without gaps such as "
                                        "--array=0-63; tasks of a list get their share by --task task/tasks",
                                        id.value_or(0), count.value_or(0), first, last));
  return {(*id - first) / step, *count};
}

}  // namespace

TaskShare find_task_share(const std::string& text) {
  if (!text.empty()) {
    const size_t slash = text.find('/');
    const bool whole = slash != std::string::npos;
    return checked(whole ? number_of(std::string_view(text).substr(0, slash)) : std::nullopt,
                   whole ? number_of(std::string_view(text).substr(slash + 1)) : std::nullopt, "--task", text);
  }
  if (std::getenv("SLURM_ARRAY_TASK_ID") != nullptr && std::getenv("SLURM_ARRAY_TASK_COUNT") != nullptr)
    return slurm_array_share();
  for (const Launcher& launcher : kLaunchers) {
    const char *task = std::getenv(launcher.task), *tasks = std::getenv(launcher.tasks);
    if (task == nullptr || tasks == nullptr) continue;
    return checked(number_of(task), number_of(tasks), launcher.task, fmt::format("{}/{}", task, tasks));
  }
  return {};
}

}  // namespace coppice
