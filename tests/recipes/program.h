// Runs the real program as a user would: arguments in, exit code and both outputs back; with limits, signals and kills.
#pragma once

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/project_folders.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

namespace fs = std::filesystem;

using coppice::slurp;
using coppice::spill;
using Scratch = ScratchFolder;

struct Outcome {
  int code = -1;  // exit code; -1 when a signal ended it
  int signal = 0;
  std::string out, err;
};

struct Process {
  pid_t pid = 0;
  fs::path out, err;
  bool ended = false;
  Outcome outcome;

  bool poll() {
    if (ended) return true;
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) != pid) return false;
    take(status);
    return true;
  }
  const Outcome& wait() {
    int status = 0;
    if (!ended && waitpid(pid, &status, 0) == pid) take(status);
    return outcome;
  }
  void send(int number) const { ::kill(pid, number); }

 private:
  void take(int status) {
    ended = true;
    outcome = {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
               .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
               .out = slurp(out),
               .err = slurp(err)};
  }
};

/// Starts `coppice` in `folder`; `in_child` runs before exec (limits).
inline Process start(const fs::path& folder, const std::vector<std::string>& arguments,
                     const std::function<void()>& in_child = {}) {
  static int count = 0;
  Process process{.out = folder / (".stdout" + std::to_string(++count)),
                  .err = folder / (".stderr" + std::to_string(count))};
  std::vector<std::string> words = {(binary_folder() / "coppice").string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  fflush(nullptr);  // or the child writes what the tests have said once more
  process.pid = fork();
  if (process.pid == 0) {
    if (chdir(folder.c_str()) != 0 || !freopen(process.out.c_str(), "w", stdout) ||
        !freopen(process.err.c_str(), "w", stderr))
      _exit(120);
    if (in_child) in_child();
    execv(argv[0], argv.data());
    _exit(121);
  }
  return process;
}

inline Outcome run(const fs::path& folder, const std::vector<std::string>& arguments,
                   const std::function<void()>& in_child = {}) {
  return start(folder, arguments, in_child).wait();
}

/// Two domains of real text, `prose` and `code`, that stay as they are while the project changes.
inline void write_corpus(const fs::path& folder) {
  for (const char* domain : {"prose.jsonl", "code.jsonl"})
    spill(folder / domain, slurp(source_folder() / "tests/text" / domain));
}

/// A task file that any corpus goes with.
inline void write_tasks(const fs::path& folder) {
  std::string lines;
  for (const char* word : {"model", "teacher", "channel", "mask", "token"})
    lines += nlohmann::json(
                 {{"context", std::string("The ") + word}, {"choices", {"of the", "zqxjvk", "@#@#@#"}}, {"answer", 0}})
                 .dump() +
             "\n";
  spill(folder / "tasks" / "words.jsonl", lines);
}

/// The corpus, tasks and a recipe of tests/recipes beside them: tiny.toml has all stage kinds, small.toml the least
/// that leaves a whole run.
inline void write_run(const fs::path& folder, const std::string& recipe) {
  write_corpus(folder / "corpus");
  write_tasks(folder);
  spill(folder / recipe, slurp(source_folder() / "tests/recipes" / recipe));
}
inline void write_tiny_run(const fs::path& folder) { write_run(folder, "tiny.toml"); }

/// metrics.jsonl without its wall-clock keys.
inline std::string without_clock(const std::string& metrics) {
  std::string text;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    nlohmann::ordered_json json = nlohmann::ordered_json::parse(line);
    for (const char* key : {"tok_s", "mfu", "t"}) json.erase(key);
    text += json.dump() + "\n";
  }
  return text;
}

/// Everything a run left that does not depend on the clock: path -> bytes (metrics without wall-clock keys).
inline std::map<std::string, std::string> results_of(const fs::path& run) {
  std::map<std::string, std::string> results;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    const std::string name = fs::relative(entry.path(), run).string();
    if (!entry.is_regular_file() || name.find("/") == std::string::npos ||
        entry.path().filename().string().starts_with("."))
      continue;  // run.json, log, report
    if (entry.path().filename() == "metrics.cut.jsonl") continue;
    results[name] = entry.path().extension() == ".jsonl" ? without_clock(slurp(entry.path())) : slurp(entry.path());
  }
  return results;
}

}  // namespace coppice::test
