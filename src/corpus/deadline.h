// The time that one document may take in one step. Steps ask in their long loops; what does not ask is judged behind.
#pragma once

#include <exception>

namespace coppice {

/// Thrown by check_deadline(); the document is dropped, reason `timeout`.
struct DocumentTimeout : std::exception {
  const char* what() const noexcept override { return "the document took too long"; }
};

/// CPU seconds of this thread, so that a busy machine changes no result.
double thread_cpu_s();
/// For this thread, in thread_cpu_s().
void set_deadline(double at);
/// Throws DocumentTimeout. About 0.2 us: once for some thousand turns of a loop.
void check_deadline();

}  // namespace coppice
