// Which task of how many, from the flag or from a launcher.
#include "src/corpus/run/task_share.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "tests/caught.h"

namespace coppice {
namespace {

constexpr const char* kVariables[] = {"SLURM_ARRAY_TASK_ID",  "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN",
                                      "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP",  "SLURM_PROCID",
                                      "SLURM_NTASKS",         "OMPI_COMM_WORLD_RANK",   "OMPI_COMM_WORLD_SIZE"};

/// "task/tasks" under these variables alone.
std::string share(const std::vector<std::pair<const char*, const char*>>& variables, const std::string& flag = "") {
  for (const char* name : kVariables) ::unsetenv(name);
  for (const auto& [name, value] : variables) ::setenv(name, value, 1);
  const TaskShare found = find_task_share(flag);
  for (const char* name : kVariables) ::unsetenv(name);
  return std::to_string(found.task) + "/" + std::to_string(found.tasks);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("task share: of the flag, then of a launcher, then the only task") {
    CHECK(share({}) == "0/1");
    CHECK(share({}, "3/16") == "3/16");
    CHECK(share({{"SLURM_ARRAY_TASK_ID", "3"}, {"SLURM_ARRAY_TASK_COUNT", "8"}}) == "3/8");
    CHECK(share({{"SLURM_ARRAY_TASK_ID", "8"}, {"SLURM_ARRAY_TASK_COUNT", "8"}, {"SLURM_ARRAY_TASK_MIN", "1"}}) ==
          "7/8");
    CHECK(share({{"SLURM_ARRAY_TASK_ID", "12"},
                 {"SLURM_ARRAY_TASK_COUNT", "16"},
                 {"SLURM_ARRAY_TASK_MIN", "0"},
                 {"SLURM_ARRAY_TASK_MAX", "60"},
                 {"SLURM_ARRAY_TASK_STEP", "4"}}) == "3/16");
    CHECK(share({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}}) == "1/4");
    CHECK(share({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}}) == "1/2");
    CHECK(share({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "4"}}, "0/2") == "0/2");
    const TaskShare second{1, 3};
    CHECK(second.owns(4));
    CHECK_FALSE(second.owns(3));
  }

  TEST_CASE("task share: what is refused") {
    for (const char* flag : {"3", "3/", "/3", "3/3", "-1/3", "1/0", "a/b", "1/2/3", " 1/2"}) {
      const Caught refused = caught([&] { find_task_share(flag); });
      CHECK_MESSAGE(refused.code == 2, flag);
      CHECK_MESSAGE(refused.says("expected task/tasks counted from 0"), flag);
    }
    const Caught gaps = caught([&] {  // --array=3,17
      share({{"SLURM_ARRAY_TASK_ID", "17"},
             {"SLURM_ARRAY_TASK_COUNT", "2"},
             {"SLURM_ARRAY_TASK_MIN", "3"},
             {"SLURM_ARRAY_TASK_MAX", "17"},
             {"SLURM_ARRAY_TASK_STEP", "1"}});
    });
    CHECK(gaps.code == 2);
    CHECK(gaps.says("got index 17 of 2 from 3 to 17, expected an array without gaps"));
    for (const char* name : kVariables) ::unsetenv(name);
    CHECK(caught([&] { share({{"SLURM_PROCID", "4"}, {"SLURM_NTASKS", "4"}}); }).says("SLURM_PROCID: got '4/4'"));
    for (const char* name : kVariables) ::unsetenv(name);
  }
}

}  // namespace coppice
