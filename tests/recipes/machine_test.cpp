// The program on the machine as it is: how many threads it takes, what it says of it, and how they wait.
#include <doctest/doctest.h>
#include <sched.h>

#include <map>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

/// `coppice arguments` with these environment variables ("" = unset) and nothing else that OpenMP reads.
Process start_with(const fs::path& folder, const std::vector<std::string>& arguments,
                   std::map<std::string, std::string> variables, int cores = 0) {
  for (const char* name : {"OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY"})
    variables.try_emplace(name, "");
  return start(folder, arguments, [=] {
    for (const auto& [name, value] : variables)
      value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
    if (cores == 0) return;
    cpu_set_t mask, own;
    sched_getaffinity(0, sizeof own, &own);
    CPU_ZERO(&mask);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&mask) < cores; ++cpu)
      if (CPU_ISSET(cpu, &own)) CPU_SET(cpu, &mask);
    sched_setaffinity(0, sizeof mask, &mask);
  });
}

/// What libgomp says that it read, at the last start of the program.
std::string spin_count(const fs::path& folder, std::map<std::string, std::string> variables) {
  variables["OMP_DISPLAY_ENV"] = "verbose";
  const std::string text = start_with(folder, {"--help"}, variables).wait().err;
  const std::string key = "GOMP_SPINCOUNT = '";
  const size_t at = text.rfind(key);
  REQUIRE(at != std::string::npos);
  return text.substr(at + key.size(), text.find('\'', at + key.size()) - at - key.size());
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("a run says first how many threads it takes and why; more than there are cores is a warning") {
    const Scratch scratch("threads");
    write_run(scratch.path, "small.toml");
    const auto said = [&](const std::vector<std::string>& extra, const std::map<std::string, std::string>& variables) {
      fs::remove_all(scratch.path / "runs");
      std::vector<std::string> command = {"data", "tokenize", "small.toml", "--unset", "threads"};
      command.insert(command.end(), extra.begin(), extra.end());
      const Outcome outcome = start_with(scratch.path, command, variables, /*cores=*/1).wait();
      INFO(outcome.err);
      CHECK(outcome.code == 0);
      CHECK(slurp(scratch.path / "runs/small/log.txt").starts_with(outcome.err.substr(0, outcome.err.find('\n'))));
      return outcome.err;
    };
    CHECK(said({}, {}).starts_with("1 thread (1 core"));
    CHECK(said({}, {{"OMP_NUM_THREADS", "2"}}).starts_with("2 threads (OMP_NUM_THREADS; 1 core"));
    const std::string text = said({"--set", "threads=3"}, {{"OMP_NUM_THREADS", "2"}});
    CHECK(text.starts_with("3 threads (the recipe's threads; 1 core"));
    CHECK(text.find("3 threads are more than the 1 core") != std::string::npos);
  }

  TEST_CASE("threads spin for a bounded time, unless the user has a setting of his own") {
    const Scratch scratch("spinning");
    const std::string ours = spin_count(scratch.path, {});
    CHECK(std::stoll(ours) <= 100'000);  // libgomp's own is 300,000
    CHECK(spin_count(scratch.path, {{"GOMP_SPINCOUNT", "77"}}) == "77");
    CHECK(spin_count(scratch.path, {{"OMP_WAIT_POLICY", "passive"}}) == "0");
    CHECK(spin_count(scratch.path, {{"OMP_WAIT_POLICY", "active"}}) != ours);
    CHECK(spin_count(scratch.path, {{"KMP_BLOCKTIME", "200"}}) != ours);
  }

  TEST_CASE("the second start keeps process, name and arguments") {
    const Scratch scratch("second_start");
    write_run(scratch.path, "small.toml");
    Process process = start_with(scratch.path, {"run", "small.toml"}, {});
    const fs::path proc = fs::path("/proc") / std::to_string(process.pid);
    while (!process.poll() && !fs::exists(scratch.path / "runs/small/log.txt"))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::string name = slurp(proc / "comm"), words = slurp(proc / "cmdline"), variables = slurp(proc / "environ");
    process.send(SIGKILL);
    process.wait();
    CHECK(name == "coppice\n");
    CHECK(words == std::string(COPPICE_BINARY_DIR) + "/coppice" + std::string("\0run\0small.toml\0", 16));
    CHECK(variables.find("GOMP_SPINCOUNT=") != std::string::npos);
  }
}
