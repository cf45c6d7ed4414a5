// Files that survive a kill: written under a temporary name, synced, renamed; hashed; locked. All writes go through
// here, so that short writes, EINTR and failpoints are handled in one place. "IoError" below is exit 4 with path,
// system text, bytes needed and free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// Lower-case hex SHA-256.
std::string sha256_hex(std::string_view bytes);
/// Of a file's bytes; UserError::bad_file when it cannot be read.
std::string sha256_file(const std::filesystem::path& path);

/// Incremental SHA-256.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::string_view bytes);
  std::string hex();  // finishes; call once

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

/// Whole file; UserError::bad_file naming size and limit when it is missing, no regular file, or larger than max_bytes.
std::string read_file(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{1} << 30);

/// `.tmp-<name>-<pid>.<drawn once>` beside the final path.
std::filesystem::path temporary_path(const std::filesystem::path& final_path);

/// Writes `.tmp-*`, fsync, close, rename, fsync of the folder. IoError on any failure; the old file stays whole.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

/// A plain file opened for writing under a name that is not final yet; every call throws IoError on failure.
class OutputFile {
 public:
  enum class Mode { create, existing, append };
  OutputFile(std::filesystem::path path, Mode mode);
  ~OutputFile();  // closes without checking: the error path
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void write(std::string_view bytes);  // at the end, loops over short writes and EINTR
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  void allocate(uint64_t bytes);  // posix_fallocate: a full disk stops here
  void truncate(uint64_t bytes);
  void sync();   // fsync; never retried
  void close();  // checked
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

void sync_folder(const std::filesystem::path& folder);
/// rename(2) then fsync of the parent folder: the commit of a file or a whole folder.
void commit_rename(const std::filesystem::path& from, const std::filesystem::path& to);
/// Removes leftover `.tmp-*` entries of one folder (not recursive).
void remove_temporaries(const std::filesystem::path& folder);
/// create_directories with IoError.
void make_folder(const std::filesystem::path& folder);
/// Refuses (exit 4) before any work when nothing can be created in the folder (read-only, missing rights).
void check_writable(const std::filesystem::path& folder);
/// Free bytes of the file system that holds `path` (its nearest existing parent).
uint64_t free_bytes(const std::filesystem::path& path);
/// Refuses names from files that are not plain leaf names: no '/', "..", control characters, at most 255 bytes.
void check_leaf_name(std::string_view name, std::string_view path);

/// flock on <folder>/.lock; dies with its process. UserError::folder_locked (exit 5) names pid and host of the holder.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace coppice
