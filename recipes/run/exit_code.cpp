#include "recipes/run/exit_code.h"

#include <c10/util/Exception.h>

#include <new>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/tensors/device.h"

namespace coppice {
namespace {

/// Neither a full disk under stderr nor one under log.txt changes the code.
int fail(ExitCode code, std::string_view text) {
  try {
    log_error(text);
  } catch (...) {  // no memory for the line
  }
  return static_cast<int>(code);
}

}  // namespace

int run_guarded(const std::function<int()>& body) {
  try {
    return body();
  } catch (const Stopped& stopped) {
    return fail(ExitCode::stopped, stopped.what());
  } catch (const Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::out_of_memory, "out of memory; a smaller micro_batch_tokens or batch_tokens needs less");
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    const bool memory = is_out_of_memory(error);
    return fail(memory ? ExitCode::out_of_memory : ExitCode::internal,
                memory ? "out of memory: " + text + "; a smaller micro_batch_tokens or batch_tokens needs less" : text);
  } catch (const std::system_error&
               error) {  // filesystem_error too: a folder that cannot be listed, a full disk under stdout
    return fail(ExitCode::io, error.what());
  } catch (const std::exception& error) {
    return fail(ExitCode::internal, error.what());
  }
}

}  // namespace coppice
