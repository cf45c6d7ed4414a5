// Signals: TERM, INT and USR1 ask for a stop at the next step boundary, USR2 for a checkpoint, HUP is survived; PIPE and XFSZ are ignored, so
// that they turn into EPIPE and EFBIG. A second stop signal, or grace_s after the first, gives up with _exit(128 + n).
#pragma once

#include <stdexcept>

namespace coppice {

void install_signal_handlers(int grace_s = 25);
bool stop_requested();
/// True once per USR2.
bool take_save_request();

/// Thrown at a step boundary after the checkpoint is written; the runner ends with 75.
class Stopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace coppice
