// Handlers set flags and nothing else; giving up with _exit is safe, because nothing half-written has a final name.
#include "src/base/signals.h"

#include <signal.h>
#include <unistd.h>

namespace coppice {
namespace {

volatile sig_atomic_t stop_signal = 0;  // the first stop signal, 0 = none
volatile sig_atomic_t save_wanted = 0;
volatile sig_atomic_t grace_seconds = 0;

extern "C" void on_stop(int signal_number) {
  if (stop_signal != 0) _exit(128 + signal_number);
  stop_signal = signal_number;
  if (grace_seconds > 0) alarm(static_cast<unsigned>(grace_seconds));
}

extern "C" void on_grace_over(int) {
  if (stop_signal != 0) _exit(128 + stop_signal);
}

extern "C" void on_save(int) { save_wanted = 1; }

void handle(int signal_number, void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal_number, &action, nullptr);
}

}  // namespace

void install_signal_handlers(int grace_s) {
  grace_seconds = grace_s;
  for (const int number : {SIGTERM, SIGINT, SIGUSR1}) handle(number, on_stop);
  handle(SIGALRM, on_grace_over);
  handle(SIGUSR2, on_save);
  for (const int number : {SIGHUP, SIGPIPE, SIGXFSZ}) handle(number, SIG_IGN);
}

void set_grace(int grace_s) {
  grace_seconds = grace_s;
  if (stop_signal != 0) alarm(static_cast<unsigned>(grace_s));  // 0 cancels
}

void end_grace() { set_grace(0); }

bool stop_requested() { return stop_signal != 0; }

bool take_save_request() {
  const bool wanted = save_wanted != 0;
  if (wanted) save_wanted = 0;
  return wanted;
}

}  // namespace coppice
