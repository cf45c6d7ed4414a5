#include "src/corpus/run/run_corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/file_lock.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/base/threads.h"
#include "src/corpus/run/corpus_folder.h"
#include "src/corpus/run/corpus_report.h"
#include "src/corpus/run/group_stage.h"
#include "src/corpus/run/input_files.h"
#include "src/corpus/run/passes.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

// Between looks for what other tasks have done: an eighth of the time waited, between these.
constexpr std::chrono::milliseconds kShortestPause = 5ms, kLongestPause = 500ms;

struct AllDone {};  // another task has completed the corpus while this one was waiting

uint64_t size_of(const fs::path& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

class CorpusRun {
 public:
  CorpusRun(const CorpusSettings& settings, const CorpusRequest& request)
      : settings_(settings),
        request_(request),
        files_(list_input_files(settings, request)),
        passes_(cut_into_passes(settings.steps)),
        folder_(request.out, corpus_identity(settings, files_, request.keep_removed_text), passes_.size()) {}

  CorpusOutcome run() {
    if (folder_.is_complete(files_)) return already_complete();
    folder_.open();
    const std::unique_ptr<FileLock> lock = take_task();
    std::vector<const SourceFile*> own;
    for (uint32_t i = 0; i < files_.size(); ++i)
      if (request_.share.owns(i)) own.push_back(&files_[i]);
    folder_.remove_leftovers(settings_.steps, own);
    try {
      groups_ = make_group_places(settings_, files_, passes_, folder_);
      for (const CorpusStep& step : settings_.steps)
        if (step.by_group() != nullptr) make_folder(folder_.group(step));
      for (size_t pass = 0; pass < passes_.size(); ++pass) {
        if (pass > 0) {
          await_files(pass - 1);
          settle_groups(settings_, passes_[pass], folder_, groups_, request_.share,
                        [this](const auto& what, size_t total, const auto& done) { await(what, total, done); });
        }
        run_pass(pass);
      }
      await_files(passes_.size() - 1);
      return finish();
    } catch (const AllDone&) {
    } catch (const Error&) {  // somebody else has completed the corpus, and work/ went while this task looked into it
      if (!fs::exists(folder_.report())) throw;
    }
    return outcome();
  }

 private:
  CorpusOutcome outcome() const { return {.files = files_.size(), .documents = corpus_documents(folder_)}; }

  CorpusOutcome already_complete() {
    for (const SourceFile& file : files_)
      if (const fs::path documents = folder_.documents(passes_.size() - 1, file); !fs::exists(documents))
        throw UserError::bad_file(documents.string(),
                                  "is gone from a corpus that was complete; bring it back, or remove "
                                  "the corpus's folder to have it made again");
    check_report_inputs(folder_, files_);
    if (!request_.keep_work) remove_work();
    CorpusOutcome done = outcome();
    done.complete_before = true;
    log_info(fmt::format("{}: already complete, {} documents", request_.out.string(), done.documents.documents));
    return done;
  }

  std::unique_ptr<FileLock> take_task() const {
    const fs::path path = folder_.work() / fmt::format(".task-{}", request_.share.task);
    std::unique_ptr<FileLock> lock = FileLock::try_take(path);
    if (lock == nullptr)
      throw UserError::folder_locked(path.string(),
                                     fmt::format("another process works as task {} of this corpus; wait for it, or "
                                                 "give each task a number of its own: --task t/W",
                                                 request_.share.task));
    return lock;
  }

  /// Until all that a step needs is there.
  void await(const std::string& what, size_t total, const std::function<size_t()>& done) const {
    std::optional<Progress> progress;
    const auto begin = std::chrono::steady_clock::now();
    while (true) {
      const size_t have = done();
      if (have == total) return;
      if (fs::exists(folder_.report())) throw AllDone();
      if (stop_requested()) throw Stopped(fmt::format("stopped waiting for {}; run again to go on", what));
      if (!request_.wait)
        throw Stopped(fmt::format("not yet: {} of {} {}; run again when the other tasks are done, or with --wait", have,
                                  total, what));
      if (!progress) progress.emplace("waiting for " + what, total, "done");
      progress->update(have, {});
      const auto waited =
          std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
      std::this_thread::sleep_for(std::clamp(waited / 8, kShortestPause, kLongestPause));
    }
  }

  void await_files(size_t pass) const {
    size_t first = 0;  // files before it are there
    await(passes_.size() == 1 ? "files" : fmt::format("files of pass {}", pass + 1), files_.size(), [&] {
      while (first < files_.size() && folder_.finished(pass, files_[first])) ++first;
      size_t have = first;
      for (size_t i = first; i < files_.size(); ++i) have += folder_.finished(pass, files_[i]);
      return have;
    });
  }

  void run_pass(size_t pass) {
    PassWork work{.settings = settings_,
                  .files = files_,
                  .passes = passes_,
                  .pass = pass,
                  .folder = folder_,
                  .groups = groups_,
                  .keep_removed_text = request_.keep_removed_text,
                  .read = request_.read};
    std::vector<uint32_t> own;
    uint64_t total = 0;
    for (uint32_t i = 0; i < files_.size(); ++i)
      if (request_.share.owns(i)) own.push_back(i), total += input_size(pass, i);
    if (own.empty()) return;

    std::atomic<size_t> next = 0, finished = 0;
    std::atomic<uint64_t> bytes = 0;
    std::mutex guard;
    std::condition_variable ended;
    size_t running = std::min<size_t>(static_cast<size_t>(choose_threads(settings_.threads)), own.size());
    std::exception_ptr failure;
    uint32_t failed = UINT32_MAX;
    bool stopped = false;
    const auto body = [&] {
      std::optional<FilePass> files;
      for (size_t i; !work.abandoned && !stop_requested() && (i = next++) < own.size();) {
        try {
          if (!is_finished(pass, own[i], bytes)) {
            if (!files) files.emplace(work);
            files->run(own[i], bytes);
          }
          ++finished;
        } catch (const Stopped&) {
        } catch (...) {
          const std::lock_guard lock(guard);
          work.abandoned = true;
          if (own[i] < failed) failure = std::current_exception(), failed = own[i];
        }
      }
      const std::lock_guard lock(guard);
      --running;
      ended.notify_one();
    };
    {
      std::vector<std::jthread> threads;
      const size_t count = running;
      for (size_t i = 0; i < count; ++i) threads.emplace_back(body);
      Progress progress(passes_.size() == 1 ? "data" : fmt::format("pass {} of {}", pass + 1, passes_.size()),
                        std::max<uint64_t>(1, total / 1'000'000), "MB");
      std::unique_lock lock(guard);
      while (!ended.wait_for(lock, 200ms, [&] { return running == 0; }))
        progress.update(bytes / 1'000'000, {{"", fmt::format("{} of {} files", finished.load(), own.size())}});
      stopped = stop_requested() && finished < own.size();
    }
    if (failure) std::rethrow_exception(failure);
    if (const std::string times = work.times.text(); !times.empty())
      log_info(fmt::format("{}{}", passes_.size() == 1 ? "" : fmt::format("pass {} of {}, ", pass + 1, passes_.size()),
                           times));
    if (stopped)
      throw Stopped(
          fmt::format("stopped after {} of {} files, which are kept; run again to go on", finished.load(), own.size()));
  }

  uint64_t input_size(size_t pass, uint32_t file) const {
    return pass == 0 ? stored_bytes(files_[file]) : size_of(folder_.documents(pass - 1, files_[file]));
  }

  bool is_finished(size_t pass, uint32_t file, std::atomic<uint64_t>& bytes) {
    if (!folder_.finished(pass, files_[file])) return false;
    const FileRecord record = folder_.record(pass, files_[file]);
    if (pass == 0) folder_.check_input(files_[file], record.input, folder_.documents(pass, files_[file]));
    bytes += input_size(pass, file);
    if (pass + 1 == passes_.size()) ++finished_before_;
    return true;
  }

  /// By the task that gets the lock; when it dies over the report, one that waits goes on.
  CorpusOutcome finish() {
    std::unique_ptr<FileLock> lock;
    await("reports", 1, [&] {
      if (!fs::exists(folder_.report())) lock = FileLock::try_take(folder_.work() / ".report");
      return size_t{lock != nullptr};
    });
    if (!fs::exists(folder_.report())) {
      for (const fs::path& written : {request_.out, request_.out / "stats"}) remove_temporaries(written);
      write_corpus_report(settings_, files_, passes_, folder_);
    }
    (void)COPPICE_FAILPOINT("corpus.before_clean");
    if (!request_.keep_work) remove_work();
    CorpusOutcome done = outcome();
    const uint64_t before = finished_before_;
    log_info(fmt::format("{}: {} documents, {} of text from {} files{}; what went and why: {}", request_.out.string(),
                         done.documents.documents, format_bytes(static_cast<double>(done.documents.text_bytes)),
                         done.files, before > 0 ? fmt::format(" ({} were finished before)", before) : "",
                         (request_.out / "report.md").string()));
    return done;
  }

  void remove_work() const {
    std::error_code error;
    fs::remove_all(folder_.work(), error);  // a task that still looks into it finds the report
  }

  const CorpusSettings& settings_;
  const CorpusRequest& request_;
  const std::vector<SourceFile> files_;
  const std::vector<Pass> passes_;
  CorpusFolder folder_;
  std::vector<GroupFiles> groups_;
  std::atomic<uint64_t> finished_before_ = 0;  // files of this task, by an earlier process
};

}  // namespace

CorpusOutcome run_corpus(const CorpusSettings& settings, const CorpusRequest& request) {
  return CorpusRun(settings, request).run();
}

}  // namespace coppice
