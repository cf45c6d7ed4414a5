#include "src/base/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

namespace fs = std::filesystem;

std::string searched_from(const fs::path& path) {
  std::error_code gone;
  const fs::path folder = fs::current_path(gone);
  return path.is_absolute() || gone ? ""
                                    : fmt::format(", relative to the working folder {}", printable(folder.native()));
}

void throw_unreadable(const fs::path& path, const std::string& what, int error_number) {
  for (const int absent : {ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG, ENXIO})
    if (error_number == absent)
      throw UserError::bad_file(path.native(), std::strerror(error_number) + searched_from(path));
  throw IoError(path.native(), what, error_number);
}

int open_for_reading(const fs::path& path) {
  const int descriptor =
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // O_NONBLOCK: a FIFO must not hang us
  if (descriptor < 0) throw_unreadable(path, "cannot be opened", errno);
  struct stat info = {};
  const int error = ::fstat(descriptor, &info) != 0 ? errno : 0;
  if (error == 0 && S_ISREG(info.st_mode)) return descriptor;
  ::close(descriptor);
  if (error != 0) throw_unreadable(path, "cannot be looked at", error);
  throw UserError::bad_file(path.native(), "is not a regular file");
}

void raise_open_file_limit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // refused: whoever opens one file too many says so
}

std::string sha256_file(const fs::path& path, const std::function<void()>& between_blocks) {
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{open_for_reading(path)};
  Sha256 sha;
  std::string buffer(size_t{1} << 20, '\0');
  ssize_t got = 0;
  do {
    between_blocks();
    got = ::read(closer.descriptor, buffer.data(), buffer.size());
    if (got > 0) sha.update(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
  } while (got > 0 || (got < 0 && errno == EINTR));
  if (got < 0) throw_unreadable(path, "cannot be read", errno);
  return sha.hex();
}

std::string sha256_file(const fs::path& path) {
  return sha256_file(path, [] {});
}

}  // namespace coppice
