// Opening and hashing input files. What the system fails to hand out (EIO, EACCES, EMFILE, ...) says nothing against a
// file: that is IoError, never bad_file.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace coppice {

/// For messages about a path that is not there: where a relative one was looked for, ", relative to the working folder
/// /home/me"; empty for an absolute one. Every path of a recipe or a command line starts there, wherever the recipe
/// lies.
std::string searched_from(const std::filesystem::path& path);
/// UserError::bad_file when the file is not there, IoError for any other errno.
[[noreturn]] void throw_unreadable(const std::filesystem::path& path, const std::string& what, int error_number);
/// A regular file opened for reading: a descriptor to close. A FIFO or a device is refused (bad_file) and does not
/// hang.
int open_for_reading(const std::filesystem::path& path);
/// As sha256_file(path); `between_blocks` is called once a MiB and may throw.
std::string sha256_file(const std::filesystem::path& path, const std::function<void()>& between_blocks);
/// Lets this process have as many files open as its hard limit allows.
void raise_open_file_limit();

}  // namespace coppice
