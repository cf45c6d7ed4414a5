#include "src/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "src/base/errors.h"

namespace coppice {
namespace {

int open_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor < 0) throw IoError(path.native(), "cannot be opened", errno);
  return descriptor;
}

/// False when the lock is somebody else's and `operation` does not wait.
bool lock_file(int descriptor, int operation, const std::filesystem::path& path) {
  while (::flock(descriptor, operation) != 0) {
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) throw IoError(path.native(), "cannot be locked", errno);
  }
  return true;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& path) : FileLock(open_file(path)) {
  lock_file(descriptor_, LOCK_EX, path);
}

std::unique_ptr<FileLock> FileLock::try_take(const std::filesystem::path& path) {
  std::unique_ptr<FileLock> lock(new FileLock(open_file(path)));
  return lock_file(lock->descriptor_, LOCK_EX | LOCK_NB, path) ? std::move(lock) : nullptr;
}

FileLock::~FileLock() {
  if (descriptor_ >= 0)
    ::close(descriptor_);  // the file stays: removing it would let a third process lock another inode
}

}  // namespace coppice
