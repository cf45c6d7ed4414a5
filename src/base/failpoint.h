// Faults on demand, for tests: COPPICE_FAILPOINT("ckpt.after_rename") does nothing unless the environment variable
// COPPICE_FAILPOINTS names it: `name=action@hit[,name=action@hit]`, action abort | error | sleep:<seconds> | nan, hit
// counted from 1 (absent: 1). COPPICE_FAIL_AFTER_IO=k kills the process right after the k-th system call of the I/O
// layer (files.cpp), which itself has the points io.open, io.write, io.allocate, io.truncate, io.fsync, io.close,
// io.rename, io.fsync_folder, io.remove, io.mkdir and io.lock, each just before its call. An observer sees each call
// afterwards, so that a test can tell what a power failure would have left. Compiled out (no lookup, no branch) unless
// the build sets COPPICE_WITH_FAILPOINTS, which release packages do not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

namespace coppice {

#ifdef COPPICE_WITH_FAILPOINTS
/// abort: SIGKILL to itself. error: throws IoError. sleep: sleeps. Returns true for nan on its hit.
bool failpoint(const char* name);
/// Counts one finished system call of the I/O layer and shows it to the observer; the k-th is the last.
void count_io_call(const char* name, const std::filesystem::path& path);
/// Called after every call of the I/O layer; empty = none.
void set_io_observer(std::function<void(std::string_view name, const std::filesystem::path& path)> observer);
/// Replaces what the environment said and starts counting anew; "" and 0 disarm. UserError::recipe on a spec that does
/// not parse.
void set_failpoints(std::string_view spec, uint64_t fail_after_io = 0);
#define COPPICE_FAILPOINT(name) ::coppice::failpoint(name)
#define COPPICE_COUNT_IO(name, path) ::coppice::count_io_call(name, path)
#else
#define COPPICE_FAILPOINT(name) false
#define COPPICE_COUNT_IO(name, path) static_cast<void>(0)
#endif

}  // namespace coppice
