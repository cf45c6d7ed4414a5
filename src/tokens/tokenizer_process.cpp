// The child answers through a pipe: its exit code in the first byte, then the model or the text of its error.
#include "src/tokens/tokenizer_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/signals.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {
namespace {

constexpr int kPoll_ms = 100;

std::string answer_of(const std::function<std::string()>& work) {
  const auto answer = [](ExitCode code, const std::string& text) {
    return std::string(1, static_cast<char>(code)) + text;
  };
  try {
    return answer(ExitCode::done, work());
  } catch (const Error& error) {
    return answer(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return answer(ExitCode::out_of_memory,
                  "out of memory while training the tokenizer; lower tokenizer.training_bytes");
  } catch (const std::exception& error) {
    return answer(ExitCode::internal, error.what());
  }
}

[[noreturn]] void answer_and_exit(int descriptor, std::string_view answer) {
  while (!answer.empty()) {
    const ssize_t done = ::write(descriptor, answer.data(), answer.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) break;
    answer.remove_prefix(static_cast<size_t>(done));
  }
  ::_exit(0);
}

/// A child and the pipe it answers through; ends with its owner.
struct Child {
  pid_t process = -1;
  int descriptor = -1;

  ~Child() {
    if (process > 0) ::kill(process, SIGKILL);
    wait();
    if (descriptor >= 0) ::close(descriptor);
  }
  /// The signal that ended it, or 0.
  int wait() {
    int status = 0;
    if (process > 0)
      while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
      }
    process = -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
};

}  // namespace

std::string train_tokenizer_in_child(const TokenizerOptions& options,
                                     const std::function<bool(std::string&)>& next_paragraph) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw IoError("pipe", "cannot be made", errno);
  const pid_t parent = ::getpid();
  Child child{.process = ::fork(), .descriptor = ends[0]};
  if (child.process == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    answer_and_exit(ends[1], answer_of([&] {
                      (void)COPPICE_FAILPOINT("tokenizer.train");
                      return train_tokenizer(options, next_paragraph);
                    }));
  }
  const int error = errno;
  ::close(ends[1]);
  if (child.process < 0) throw IoError("fork", "no process can be started", error);

  std::string answer, block(size_t{1} << 16, '\0');
  for (;;) {
    if (stop_requested()) throw Stopped("stopped while training the tokenizer; run again to start it over");
    pollfd ready{.fd = child.descriptor, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, kPoll_ms) <= 0) continue;
    const ssize_t got = ::read(child.descriptor, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    answer.append(block, 0, static_cast<size_t>(got));
  }
  const int signal_number = child.wait();
  if (signal_number == SIGKILL)
    throw DeviceError::out_of_memory(
        "the tokenizer's training was killed by the system, probably for memory; lower tokenizer.training_bytes");
  if (answer.empty())
    throw InternalError(
        fmt::format("the tokenizer's training ended without an answer ({}); what the library says stands above",
                    signal_number != 0 ? fmt::format("signal {}", signal_number) : "it gave up"));
  const auto code = static_cast<ExitCode>(answer[0]);
  if (code != ExitCode::done) throw Error(code, answer.substr(1));
  return answer.substr(1);
}

}  // namespace coppice
