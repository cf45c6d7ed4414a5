#include "src/tensors/executor/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstring>
#include <new>

#include "src/tensors/executor/race_check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace coppice::executor {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = 64 * 1024;

/// Stack tops of neighbours lie in different sets of the cache.
size_t stagger(int index) { return static_cast<size_t>(index % 32) * 128; }

void about_to_change([[maybe_unused]] void** fake_stack, const Context& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, to.stack, to.stack_bytes);
#endif
  change_race_fiber(to.race_fiber);
}

void have_changed([[maybe_unused]] void* fake_stack) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

}  // namespace

#ifdef COPPICE_UCONTEXT_FIBERS

namespace {

void jump(Context& from, const Context& to) { ::swapcontext(&from.registers, &to.registers); }

/// makecontext hands over ints, so that two pointers come as four.
void call_entry(unsigned entry_high, unsigned entry_low, unsigned argument_high, unsigned argument_low) {
  const auto entry = reinterpret_cast<void (*)(void*)>(uintptr_t{entry_high} << 32 | entry_low);
  entry(reinterpret_cast<void*>(uintptr_t{argument_high} << 32 | argument_low));
}

void prepare(Context& context, char* top, void (*entry)(void*), void* argument) {
  ::getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = const_cast<char*>(context.stack);
  context.registers.uc_stack.ss_size = static_cast<size_t>(top - context.stack);
  context.registers.uc_link = nullptr;
  const auto function = reinterpret_cast<uintptr_t>(entry), value = reinterpret_cast<uintptr_t>(argument);
  ::makecontext(&context.registers, reinterpret_cast<void (*)()>(call_entry), 4, static_cast<unsigned>(function >> 32),
                static_cast<unsigned>(function), static_cast<unsigned>(value >> 32), static_cast<unsigned>(value));
}

}  // namespace

#else

extern "C" void coppice_change_stack(void** from, void* to);
extern "C" void coppice_start_fiber();

// The registers that a called function must keep, and the stack pointer: nothing else lives across a call.
asm(R"(
  .text
  .globl coppice_change_stack
  .type coppice_change_stack, @function
coppice_change_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size coppice_change_stack, .-coppice_change_stack

  .globl coppice_start_fiber
  .type coppice_start_fiber, @function
coppice_start_fiber:
  .cfi_startproc
  .cfi_undefined rip
  movq %r12, %rdi
  callq *%r13
  ud2
  .cfi_endproc
  .size coppice_start_fiber, .-coppice_start_fiber
)");

namespace {

void jump(Context& from, const Context& to) { coppice_change_stack(&from.stack_pointer, to.stack_pointer); }

void prepare(Context& context, char* top, void (*entry)(void*), void* argument) {
  void* const frame[] = {nullptr,  // r15, r14, r13, r12, rbx, rbp as they are popped, then the address to return to
                         nullptr,  reinterpret_cast<void*>(entry),
                         argument, nullptr,
                         nullptr,  reinterpret_cast<void*>(coppice_start_fiber)};
  context.stack_pointer = top - sizeof(frame);
  std::memcpy(context.stack_pointer, frame, sizeof(frame));
}

}  // namespace

#endif

Context host_context() {
  Context host{};
  host.race_fiber = this_race_fiber();
#ifdef __SANITIZE_ADDRESS__
  pthread_attr_t attributes;
  void* stack = nullptr;
  if (::pthread_getattr_np(::pthread_self(), &attributes) == 0) {
    ::pthread_attr_getstack(&attributes, &stack, &host.stack_bytes);
    ::pthread_attr_destroy(&attributes);
  }
  host.stack = static_cast<const char*>(stack);
#endif
  return host;
}

void change(Context& from, const Context& to) {
  void* fake_stack = nullptr;
  about_to_change(&fake_stack, to);
  jump(from, to);
  have_changed(fake_stack);
}

void leave(Context& from, const Context& to) {
  about_to_change(nullptr, to);
  jump(from, to);
  __builtin_unreachable();
}

void arrived() { have_changed(nullptr); }

void Stacks::reserve(int count) {
  while (stacks_.size() < static_cast<size_t>(count)) {
    void* const mapped = ::mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    if (::mprotect(mapped, kPage, PROT_NONE) != 0) throw std::bad_alloc();  // more mappings than the system allows
    stacks_.push_back({.bottom = static_cast<char*>(mapped) + kPage, .race_fiber = make_race_fiber()});
  }
}

void Stacks::start(Context& context, int index, void (*entry)(void*), void* argument) {
  const Stack& stack = stacks_[static_cast<size_t>(index)];
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack.bottom, kStackBytes);  // what a fiber that never went on has left
#endif
  context.stack = stack.bottom;
  context.stack_bytes = kStackBytes;
  context.race_fiber = stack.race_fiber;
  prepare(context, stack.bottom + kStackBytes - stagger(index), entry, argument);
}

}  // namespace coppice::executor
