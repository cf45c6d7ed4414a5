#include "recipes/ablation/run_ablation.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <utility>

#include "recipes/ablation/ablation_folder.h"
#include "recipes/folder/machine.h"
#include "recipes/language/sources.h"
#include "recipes/report/ablation_report.h"
#include "recipes/run/collect_report.h"
#include "recipes/run/exit_code.h"
#include "recipes/run/placed_cost.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/stages/make_corpus.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr double kReportEvery_s = 30;

/// Starts `work` in a process of its own. The parent never uses torch's threads, so a fork is whole; the child dies
/// with its parent, ignores the terminal's signals (the parent passes a stop on, once) and holds no lock.
pid_t start_child(RunFolder& run, int threads, const fs::path& log_file, bool quiet,
                  const std::function<void()>& work) {
  std::fflush(stdout);
  const pid_t parent = getpid(), child = fork();
  if (child < 0) throw IoError("fork", "no process can be started", errno);
  if (child > 0) return child;
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(static_cast<int>(ExitCode::internal));
  const int code = run_guarded([&] {
    run.leave_lock_to_parent();
    if (quiet) set_log_style(LogStyle::quiet);
    set_log_file(log_file);
    start_torch(threads);
    try {
      work();
    } catch (const Stopped&) {
      return static_cast<int>(ExitCode::stopped);  // the parent says it for all
    }
    return static_cast<int>(ExitCode::done);
  });
  std::fflush(nullptr);
  _exit(code);
}

/// Throws the Error of a check that asks for CUDA devices, which this process leaves to its children.
void check_in_child(const std::function<void()>& check) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw IoError("pipe", "cannot be made", errno);
  const pid_t child = fork();
  if (child == 0) {
    try {
      check();
    } catch (const Error& error) {
      const std::string_view text = error.what();  // shorter than what a pipe takes at once
      const bool written = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
      _exit(static_cast<int>(written ? error.code() : ExitCode::internal));
    }
    _exit(static_cast<int>(ExitCode::done));
  }
  const int fork_error = errno;
  close(ends[1]);
  std::string text(PIPE_BUF, '\0');
  ssize_t size = 0;
  int status = 0;
  while (child > 0 && (size = read(ends[0], text.data(), text.size())) < 0 && errno == EINTR) {
  }
  while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  close(ends[0]);
  if (child < 0) throw IoError("fork", "no process can be started", fork_error);
  text.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
  if (WIFSIGNALED(status))
    throw InternalError(fmt::format("asking for CUDA devices ended by signal {}", WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0) throw Error(static_cast<ExitCode>(WEXITSTATUS(status)), text);
}

/// The child's exit code; 128 + n when signal n ended it. -1 while it runs.
int poll_child(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, WNOHANG) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void rest() { std::this_thread::sleep_for(std::chrono::milliseconds(5)); }

[[noreturn]] void throw_failure(int code, const std::string& what) {
  if (code == static_cast<int>(ExitCode::stopped)) throw Stopped(what + " was stopped; run again to go on");
  if (code == 128 + SIGKILL)
    throw DeviceError::out_of_memory(
        what +
        " was killed by the system, probably for memory; fewer --jobs or a smaller micro_batch_tokens need less");
  if (code >= 128) throw InternalError(fmt::format("{} was ended by signal {}", what, code - 128));
  throw Error(static_cast<ExitCode>(code), what + " failed, see above; the same command goes on from there");
}

/// The stages under way and those still to come.
class Scheduler {
 public:
  Scheduler(const Ablation& ablation, const AblationPlan& plan, std::vector<Holder>& holders, RunFolder& run,
            Parallelism parallel)
      : ablation_(ablation),
        plan_(plan),
        holders_(holders),
        run_(run),
        parallel_(parallel),
        progress_("ablation", 0, "stages"),
        failed_(plan.stages.size(), 0),
        chain_s_(plan.stages.size(), 0.0),
        taken_over_(plan.stages.size(), 0) {
    for (const Holder& holder : holders_) num_done_ += holder.done;
    for (size_t d = plan.stages.size(); d-- > 0;) {  // inputs come first, so whoever waits for d has been seen
      chain_s_[d] += plan.stages[d].cost.seconds;
      for (const size_t input : plan.stages[d].inputs) chain_s_[input] = std::max(chain_s_[input], chain_s_[d]);
      const Recipe& recipe = owner(d).recipe;
      taken_over_[d] = taken_over_stages(recipe).contains(recipe.stages[plan.stages[d].stage].name);
    }
  }

  /// Runs until nothing is left that can be run. Throws Stopped, or the first failure once what could be finished is
  /// finished.
  void run() {
    const double begin_s = last_report_s_ = monotonic_s();
    while (true) {
      if (stop_requested() && !passed_on_) {
        for (const Worker& worker : workers_) kill(worker.process, SIGTERM);
        passed_on_ = true;
      }
      if (take_save_request())
        for (const Worker& worker : workers_) kill(worker.process, SIGUSR2);
      while (!closed_ && !stop_requested() && static_cast<int>(workers_.size()) < parallel_.jobs && start_next()) {
      }
      if (workers_.empty()) break;
      for (size_t w = 0; w < workers_.size();) {
        const int code = poll_child(workers_[w].process);
        if (code < 0) {
          ++w;
          continue;
        }
        const Worker ended = workers_[w];
        workers_.erase(workers_.begin() + static_cast<std::ptrdiff_t>(w));
        finish(ended, code);
      }
      show(begin_s);
      rest();
    }
    progress_.finish(fmt::format("{} of {} stages done in {}", num_done_, plan_.stages.size(),
                                 format_duration(monotonic_s() - begin_s)));
    if (stop_requested()) throw Stopped("stopped; finished stages and checkpoints are kept, run again to go on");
  }
  /// Exit code of the first stage that failed, and which; 0 = none.
  int failure() const { return failure_; }
  const std::string& failed_stage() const { return failed_stage_; }

 private:
  struct Worker {
    pid_t process;
    size_t distinct;
    double begin_s;
  };

  const ArmRun& owner(size_t d) const { return ablation_.runs[plan_.stages[d].run]; }
  std::string name_of(size_t d) const {
    return owner(d).folder() + "/" + owner(d).recipe.stages[plan_.stages[d].stage].name;
  }

  /// Of the stages whose inputs are there, one that is taken over from elsewhere, or the one with the longest chain of
  /// work behind it: so no long one is left alone at the end.
  bool start_next() {
    std::optional<size_t> next;
    for (size_t d = 0; d < plan_.stages.size(); ++d) {
      const DistinctStage& stage = plan_.stages[d];
      const auto in_the_way = [&](const Worker& worker) {
        return plan_.stages[worker.distinct].run == stage.run;
      };  // itself, or another writer of its run.json
      if (holders_[d].done || failed_[d] || std::ranges::any_of(workers_, in_the_way)) continue;
      if (!std::ranges::all_of(stage.inputs, [&](size_t input) { return holders_[input].done; })) continue;
      if (!next || std::pair(taken_over_[d], chain_s_[d]) > std::pair(taken_over_[*next], chain_s_[*next])) next = d;
    }
    if (!next) return false;
    const DistinctStage& stage = plan_.stages[*next];
    const ArmRun& arm_run = owner(*next);
    const fs::path folder = run_.root() / arm_run.folder();
    const pid_t process =
        start_child(run_, parallel_.threads, folder / "log.txt", /*quiet=*/true,
                    [&] {  // its log.txt has every line, the terminal those of the parent
                      RunFolder own = RunFolder::within_locked_run(folder);
                      const Stage& begun = arm_run.recipe.stages[stage.stage];
                      if (begun_fingerprint(folder / begun.name).empty()) {
                        const StageCost placed = placed_cost(begun, stage.cost);
                        own.add_prediction(begun.name, placed.seconds, placed.memory_bytes);
                      }
                      run_stage(arm_run.recipe, begun, own, open_data(run_.root()), stage.fingerprint, stage.identity);
                    });
    workers_.push_back({.process = process, .distinct = *next, .begin_s = monotonic_s()});
    return true;
  }

  void finish(const Worker& worker, int code) {
    const size_t d = worker.distinct;
    if (code != 0) {
      failed_[d] = 1;
      if (code == static_cast<int>(ExitCode::stopped) && stop_requested()) return;
      if (failure_ == 0) {
        failure_ = code;
        failed_stage_ = name_of(d);
      }
      closed_ |= code != static_cast<int>(ExitCode::diverged);
      log_warning(
          fmt::format("{} ended with exit code {}{}", name_of(d), code, closed_ ? "" : "; other arms and seeds go on"));
      return;
    }
    holders_[d].done = true;
    ++num_done_;
    work_done_s_ += plan_.stages[d].cost.seconds;
    link_sharers(run_.root(), ablation_, d, plan_, holders_[d]);
    log_info(fmt::format(
        "{}: {}{}", name_of(d), format_duration(monotonic_s() - worker.begin_s),
        plan_.stages[d].num_users > 1 ? fmt::format(", for {} arms and seeds", plan_.stages[d].num_users) : ""));
    for (const ArmRun& arm_run : ablation_.runs)
      if (std::ranges::find(arm_run.stages, d) != arm_run.stages.end() &&
          std::ranges::all_of(arm_run.stages, [&](size_t s) { return holders_[s].done; }))
        write_report(run_.root() / arm_run.folder());
    if (monotonic_s() - last_report_s_ >= kReportEvery_s) {
      write_ablation_report(run_.root());
      last_report_s_ = monotonic_s();
    }
  }

  /// The time left by this process' own pace against the plan's prediction.
  void show(double begin_s) {
    const double now = monotonic_s();
    double left_s = 0, under_way_s = 0;
    std::string names;
    for (size_t d = 0; d < holders_.size(); ++d)
      if (!holders_[d].done) left_s += plan_.stages[d].cost.seconds;
    for (const Worker& worker : workers_) {
      under_way_s += std::min(now - worker.begin_s, 0.9 * plan_.stages[worker.distinct].cost.seconds);
      names += (names.empty() ? "" : ", ") + name_of(worker.distinct);
    }
    const double pace = work_done_s_ > 0 ? (now - begin_s) / (work_done_s_ + under_way_s) : 1.0 / parallel_.jobs;
    progress_.update(num_done_, {{"of", std::to_string(holders_.size())},
                                 {"", names},
                                 {"ETA", format_duration(std::max(0.0, left_s - under_way_s) * pace)}});
  }

  const Ablation& ablation_;
  const AblationPlan& plan_;
  std::vector<Holder>& holders_;
  RunFolder& run_;
  Parallelism parallel_;
  Progress progress_;
  std::vector<Worker> workers_;
  std::vector<char> failed_;
  std::vector<double> chain_s_;  // predicted seconds from the start of a stage to the end of the last that waits for it
  std::vector<char> taken_over_;  // imports and labels from elsewhere: read first, as in a run
  uint64_t num_done_ = 0;
  double work_done_s_ = 0, last_report_s_ = 0;
  bool passed_on_ = false, closed_ = false;
  int failure_ = 0;
  std::string failed_stage_;
};

/// Tokenizer and token shards, and what this machine is: run.json. In a process of its own, as every use of torch here.
void prepare(const Ablation& ablation, RunFolder& run, const Json& identity, int threads) {
  const pid_t child = start_child(run, threads, run.root() / "log.txt", /*quiet=*/false, [&] {
    run.write_run_file(ablation.base);
    const PreparedData data = prepare_data(ablation.base, run, identity);
    check_before_work(ablation, Missing::refused, data.tokenizer.get());
    std::vector<std::string> lines;
    for (const ArmRun& arm_run : ablation.runs)
      std::ranges::copy(check_windows(arm_run.recipe, data), std::back_inserter(lines));
    log_warnings(lines);
  });
  int code = -1;
  for (bool passed_on = false; (code = poll_child(child)) < 0; rest())
    if (stop_requested() && !passed_on) {
      kill(child, SIGTERM);
      passed_on = true;
    }
  if (code != 0) throw_failure(code, "data preparation");
}

/// Every arm and seed has a run folder of its own, whole but for the data: recipe.toml, run.json, report.
void write_arm_files(const fs::path& root, const Ablation& ablation) {
  const Json shared = read_json(root / "run.json");
  for (const ArmRun& arm_run : ablation.runs) {
    const fs::path folder = root / arm_run.folder();
    make_folder(folder);
    Json own = fs::exists(folder / "run.json") ? read_json(folder / "run.json") : Json::object();
    for (const char* key : {"recipe", "versions", "machine", "host", "started"}) own[key] = shared.at(key);
    own["seed"] = arm_run.seed;
    write_file_atomically(folder / "run.json", own.dump(1) + "\n");
    arm_run.recipe.sources->save(folder);
    write_file_atomically(folder / "recipe.toml", arm_run.recipe.resolved);
  }
}

}  // namespace

void run_ablation(const RunRequest& request, int jobs) {
  leave_cuda_to_children();
  Ablation ablation =
      load_ablation(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
  const Parallelism parallel = parallelism_of(ablation.base, jobs);
  const fs::path root = run_root(request, ablation.base);
  if (request.fresh && fs::exists(root / "recipe.toml"))
    throw UserError::recipe("--fresh",
                            fmt::format("{} already holds a run; leave --fresh out to go on with it", root.string()));
  install_signal_handlers(ablation.base.grace_s);
  RunFolder run(root);  // first: a second run is told so before it reads the corpus
  set_log_file(root / "log.txt");
  make_corpus(ablation.base);
  check_before_work(ablation, Missing::refused);
  const Json data = data_identity(ablation.base);
  if (stop_requested()) throw Stopped("stopped before any work; run again to go on");
  const std::string data_fingerprint = fingerprint(data);
  AblationPlan plan = plan_ablation(ablation, data_fingerprint, 0);
  const std::set<std::string> finished = finished_fingerprints(root);
  for (const DistinctStage& stage : plan.stages) {  // before anything is moved aside
    const Recipe& recipe = ablation.runs[stage.run].recipe;
    if (!finished.contains(stage.fingerprint)) check_there(recipe, recipe.stages[stage.stage]);
  }
  check_in_child([&] {
    for (const DistinctStage& stage : plan.stages)
      if (!finished.contains(stage.fingerprint)) check_placement(ablation.runs[stage.run].recipe.stages[stage.stage]);
  });
  if (const std::string held = begun_fingerprint(root / "data"); !held.empty() && held != data_fingerprint) {
    if (!request.rerun)
      throw UserError::recipe("", fmt::format("{} holds data of other options; run with --rerun to move it aside and "
                                              "run every stage again, or choose another folder with --out",
                                              root.string()));
    check_data_there(ablation.base, "");
    run.move_aside("data", held);
  }
  std::vector<Holder> holders = find_holders(root, ablation, plan, request.rerun);
  for (size_t d = 0; d < holders.size(); ++d) {
    const Recipe& recipe = ablation.runs[plan.stages[d].run].recipe;
    if (holders[d].done) continue;
    check_data_there(recipe, root / "data");
  }
  check_in_child([&] { check_rest_fits(ablation, plan, holders, root, parallel.jobs); });
  ablation.base.sources->save(root);
  write_file_atomically(root / "recipe.toml", ablation.base.resolved);
  for (size_t d = 0; d < holders.size(); ++d) {
    link_sharers(root, ablation, d, plan, holders[d]);
    const DistinctStage& stage = plan.stages[d];
    if (holders[d].done)
      remove_checkpoints(ablation.runs[stage.run].recipe.stages[stage.stage], root / holders[d].folder);
  }
  int failure = 0;
  std::string failed_stage;
  if (std::ranges::all_of(holders, &Holder::done)) {
    say_what_is_gone(ablation.base);
    write_arm_files(root, ablation);  // an older version's arms have no record of their own
    fmt::print("already complete\n");
  } else {
    log_threads(ablation.base.threads, parallel.threads, parallel.jobs);
    log_warnings(ablation_warnings(ablation));
    say_what_is_gone(ablation.base);
    prepare(ablation, run, data, parallel.threads);
    write_arm_files(root, ablation);
    const AblationPlan timed =
        plan_ablation(ablation, data_fingerprint, read_json(root / "run.json").at("machine").value("gemm_gflops", 0.0));
    for (size_t d = 0; d < plan.stages.size(); ++d) plan.stages[d].cost = timed.stages[d].cost;
    log_info(fmt::format("{} arms x {} seeds: {} distinct stages, {} done already, {} at a time with {} threads each",
                         ablation.base.arms.size(), ablation.seeds.size(), plan.stages.size(),
                         std::ranges::count_if(holders, &Holder::done), parallel.jobs, parallel.threads));
    Scheduler scheduler(ablation, plan, holders, run, parallel);
    scheduler.run();
    failure = scheduler.failure();
    failed_stage = scheduler.failed_stage();
  }
  const std::string verdict = write_ablation_report(root);
  for (const ArmRun& arm_run : ablation.runs)
    if (!fs::exists(root / arm_run.folder() / "report.md") && fs::exists(root / arm_run.folder() / "recipe.toml"))
      write_report(root / arm_run.folder());
  fmt::print("{}\n\ntables: {}, .md, .csv, .json, .svg\n", verdict, (root / "ablation.html").string());
  if (failure != 0) throw_failure(failure, failed_stage);
}

}  // namespace coppice
