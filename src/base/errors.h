// Errors sorted by who can fix them, and the exit code each one ends the program with.
// Thrown by libraries, caught once by the command runner, which prints one line for a user's error and returns
// exit_code().
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace coppice {

/// The program's exit codes; a process killed by signal n ends with 128 + n.
enum class ExitCode : int {
  done = 0,
  internal = 1,
  recipe = 2,
  bad_file = 3,
  io = 4,
  locked = 5,
  diverged = 6,
  out_of_memory = 7,
  timed_out = 9,
  stopped = 75,  // stopped by a signal after saving: run again
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// A bug of ours: a condition that no input may break.
class InternalError : public Error {
 public:
  explicit InternalError(const std::string& message, std::source_location at = std::source_location::current());
};

/// Something the user can mend: the recipe, the command line, an input file.
class UserError : public Error {
 public:
  using Error::Error;
  /// `where` is file:line, a flag or empty; the text says what came, what was expected and what to do.
  static UserError recipe(std::string_view where, const std::string& message);
  static UserError bad_file(std::string_view path, const std::string& message);
  static UserError folder_locked(std::string_view path, const std::string& message);
};

/// Writing failed: carries the path and the system's text; `error_number` is errno (0 = none).
class IoError : public Error {
 public:
  IoError(std::string_view path, const std::string& message, int error_number = 0);
};

class DivergedError : public Error {
 public:
  explicit DivergedError(const std::string& message) : Error(ExitCode::diverged, message) {}
};

class DeviceError : public Error {
 public:
  using Error::Error;
  static DeviceError out_of_memory(const std::string& message);
  static DeviceError timed_out(const std::string& message);
  static DeviceError unavailable(const std::string& message);
};

/// Escapes control characters (C0, C1, DEL, line separators, direction marks) and invalid UTF-8, so that names from
/// files cannot steer a terminal.
std::string printable(std::string_view text);
/// The same line by line: the text's own line breaks stay.
std::string printable_lines(std::string_view text);

#define COPPICE_CHECK(condition, message)                                                         \
  do {                                                                                            \
    if (!(condition)) throw ::coppice::InternalError(std::string(#condition) + ": " + (message)); \
  } while (false)

}  // namespace coppice
