// Child processes that may die.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>

#include "src/base/errors.h"

namespace coppice {

/// Starts `body` in a forked child that ends with an Error's own code, 0, or 99 for any other exception.
inline pid_t start_child(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 0;
  try {
    body();
  } catch (const Error& error) {
    code = static_cast<int>(error.code());
  } catch (...) {
    code = 99;
  }
  ::_exit(code);
}

/// The exit code, or 128 + the signal that killed it.
inline int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/// Both: the child's exit code (0 = returned), or 128 + the signal that killed it.
inline int run_in_child(const std::function<void()>& body) { return wait_for(start_child(body)); }

}  // namespace coppice
