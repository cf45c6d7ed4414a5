// A lock on one file, for work that several processes share out among themselves. A folder that one process owns has
// FolderLock (files.h).
#pragma once

#include <filesystem>
#include <memory>

namespace coppice {

/// flock on one file, created when absent; dies with its holder's process.
class FileLock {
 public:
  /// Waits for it. IoError when the file cannot be created.
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  /// Nothing while somebody else holds it, in this process or another.
  static std::unique_ptr<FileLock> try_take(const std::filesystem::path& path);

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_ = -1;
};

}  // namespace coppice
