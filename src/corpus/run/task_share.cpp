#include "src/corpus/run/task_share.h"

#include <fmt/format.h>

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
  const char *task, *tasks, *first;  // first: the number of the first task, where it is not 0
};
constexpr Launcher kLaunchers[] = {{"SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"},
                                   {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", nullptr},
                                   {"SLURM_PROCID", "SLURM_NTASKS", nullptr}};

}  // namespace

TaskShare find_task_share(const std::string& text) {
  if (!text.empty()) {
    const size_t slash = text.find('/');
    const bool whole = slash != std::string::npos;
    return checked(whole ? number_of(std::string_view(text).substr(0, slash)) : std::nullopt,
                   whole ? number_of(std::string_view(text).substr(slash + 1)) : std::nullopt, "--task", text);
  }
  for (const Launcher& launcher : kLaunchers) {
    const char *task = std::getenv(launcher.task), *tasks = std::getenv(launcher.tasks);
    if (task == nullptr || tasks == nullptr) continue;
    std::optional<uint32_t> number = number_of(task);
    const char* first = launcher.first != nullptr ? std::getenv(launcher.first) : nullptr;
    if (number && first != nullptr) {  // --array=1-8 counts from 1
      const std::optional<uint32_t> least = number_of(first);
      number = least && *least <= *number ? std::optional(*number - *least) : std::nullopt;
    }
    return checked(number, number_of(tasks), launcher.task, fmt::format("{}/{}", task, tasks));
  }
  return {};
}

}  // namespace coppice
