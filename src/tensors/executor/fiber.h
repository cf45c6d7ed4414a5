// Fibers: stacks of their own on one thread of the host, changed by hand. On x86-64 a change is fifteen instructions of
// assembly, elsewhere (or with COPPICE_UCONTEXT_FIBERS) it is ucontext's. AddressSanitizer and, with
// COPPICE_RACE_CHECK, ThreadSanitizer are told of every change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#if !defined(__x86_64__) && !defined(COPPICE_UCONTEXT_FIBERS)
#define COPPICE_UCONTEXT_FIBERS 1
#endif
#ifdef COPPICE_UCONTEXT_FIBERS
#include <ucontext.h>
#endif

namespace coppice::executor {

/// Where a fiber, or the host that runs them, goes on when it is changed to.
struct Context {
#ifdef COPPICE_UCONTEXT_FIBERS
  ucontext_t registers;
#else
  void* stack_pointer = nullptr;
#endif
  const char* stack = nullptr;  // its lowest byte
  size_t stack_bytes = 0;
  void* race_fiber = nullptr;  // ThreadSanitizer's name for it
};

/// The context of the calling host thread.
Context host_context();

/// Goes on at `to` and returns when somebody goes on at `from`.
void change(Context& from, const Context& to);
/// Goes on at `to` for good: the stack that this is called on is not come back to.
[[noreturn]] void leave(Context& from, const Context& to);
/// What a fiber's first function has to call before anything else.
void arrived();

/// Stacks of 64 KiB, each above a guard page, mapped once and used again.
class Stacks {
 public:
  /// Makes sure that there are `count`; throws std::bad_alloc where the system gives no memory.
  void reserve(int count);
  /// Makes `context` call entry(argument) on stack `index`, at its top. entry must not return. The context stays where
  /// it is: ucontext's points into itself.
  void start(Context& context, int index, void (*entry)(void*), void* argument);

 private:
  struct Stack {
    char* bottom = nullptr;
    void* race_fiber = nullptr;
  };
  std::vector<Stack> stacks_;
};

}  // namespace coppice::executor
