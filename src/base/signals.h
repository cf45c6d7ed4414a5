// Signals: TERM, INT and USR1 ask for a stop at the next step boundary, USR2 for a checkpoint, HUP is survived; PIPE
// and XFSZ are ignored, so that they turn into EPIPE and EFBIG. A second stop signal, or grace_s after the first, gives
// up with _exit(128 + n). Whoever has saved calls end_grace(): what is left to do then is not cut short.
#pragma once

#include <stdexcept>

namespace coppice {

void install_signal_handlers(int grace_s = 25);
/// Another time between a stop signal and giving up; 0 = without end. Counts anew when the signal has come already.
void set_grace(int grace_s);
/// Nothing is lost any more: time alone no longer ends this process, a second signal still does.
void end_grace();
bool stop_requested();
/// True once per USR2.
bool take_save_request();

/// Thrown at a step boundary after the checkpoint is written; the runner ends with 75.
class Stopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace coppice
