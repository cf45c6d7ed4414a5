// The thin I/O layer: every system call that changes the disk is made here, so that short writes, EINTR, failpoints and
// the texts of failures live in one place. Each call is announced to a failpoint before and counted after (reliability:
// kill after the k-th call).
#include "src/base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <random>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/input_file.h"
#include "src/base/log.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// One system call that may be interrupted: announced, repeated on EINTR, counted; -1 and errno as the call left them.
template <class Call>
auto retry([[maybe_unused]] const char* name, [[maybe_unused]] const fs::path& path, Call call) {
  (void)COPPICE_FAILPOINT(name);
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  const int error = errno;
  COPPICE_COUNT_IO(name, path);
  errno = error;
  return result;
}

int open_for_writing(const fs::path& path, int flags) {
  const int descriptor =
      retry("io.open", path, [&] { return ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0644); });
  if (descriptor < 0) throw IoError(path.native(), "cannot be opened for writing", errno);
  return descriptor;
}

fs::path parent_of(const fs::path& path) {
  const fs::path clean = path.has_filename() ? path : path.parent_path();
  return clean.parent_path().empty() ? fs::path(".") : clean.parent_path();
}

fs::path nearest_existing(fs::path path) {
  std::error_code error;
  while (!path.empty() && !fs::exists(path, error)) {
    const fs::path parent = path.parent_path();
    if (parent == path) break;
    path = parent;
  }
  return path.empty() ? fs::path(".") : path;
}

}  // namespace

std::string read_file(const fs::path& path, uint64_t max_bytes) {
  const int descriptor = open_for_reading(path);
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat info = {};
  if (::fstat(descriptor, &info) != 0) throw_unreadable(path, "cannot be looked at", errno);
  const auto refuse_size = [&](uint64_t bytes) {
    return UserError::bad_file(path.native(),
                               fmt::format("has {} bytes or more, at most {} are read", bytes, max_bytes));
  };
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  if (size > max_bytes) throw refuse_size(size);
  std::string bytes(size + 1, '\0');  // one more than there should be: the last read sees the end of the file
  size_t have = 0;
  for (;;) {
    const ssize_t got = ::read(descriptor, bytes.data() + have, bytes.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_unreadable(path, fmt::format("cannot be read at byte {}", have), errno);
    if (got == 0) break;
    have += static_cast<size_t>(got);
    if (have > max_bytes) throw refuse_size(have);
    if (have == bytes.size()) bytes.resize(2 * bytes.size());  // it grew while we read
  }
  bytes.resize(have);
  return bytes;
}

fs::path temporary_path(const fs::path& final_path) {
  // Processes of one number meet in a folder that several machines or containers share.
  static const unsigned drawn = std::random_device()();
  const fs::path clean = final_path.has_filename() ? final_path : final_path.parent_path();
  return clean.parent_path() / fmt::format(".tmp-{}-{}.{:08x}", clean.filename().native(), ::getpid(), drawn);
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = temporary_path(path);
  try {
    OutputFile file(temporary, OutputFile::Mode::create);
    file.write(bytes);
    file.sync();
    file.close();
    commit_rename(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

OutputFile::OutputFile(fs::path path, Mode mode) : path_(std::move(path)) {
  switch (mode) {
    case Mode::create:
      descriptor_ = open_for_writing(path_, O_WRONLY | O_CREAT | O_TRUNC);
      break;
    case Mode::existing:
      descriptor_ = open_for_writing(path_, O_WRONLY);
      ::lseek(descriptor_, 0, SEEK_END);
      break;
    case Mode::append:
      descriptor_ = open_for_writing(path_, O_WRONLY | O_CREAT | O_APPEND);
      break;
  }
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = retry("io.write", path_, [&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (done <= 0)
      throw IoError(path_.native(), fmt::format("cannot write {}", format_bytes(static_cast<double>(bytes.size()))),
                    done < 0 ? errno : EIO);
    bytes.remove_prefix(static_cast<size_t>(done));
  }
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = retry("io.write", path_, [&] {
      return ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    });
    if (done <= 0)
      throw IoError(path_.native(),
                    fmt::format("cannot write {} at byte {}", format_bytes(static_cast<double>(bytes.size())), offset),
                    done < 0 ? errno : EIO);
    bytes = bytes.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
}

void OutputFile::allocate(uint64_t bytes) {
  if (bytes == 0) return;
  retry("io.allocate", path_, [&] {  // posix_fallocate returns its error instead of setting errno
    errno = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
    return errno == 0 ? 0 : -1;
  });
  if (errno != 0)
    throw IoError(path_.native(),
                  fmt::format("cannot reserve {} ({} bytes)", format_bytes(static_cast<double>(bytes)), bytes), errno);
}

void OutputFile::truncate(uint64_t bytes) {
  if (retry("io.truncate", path_, [&] { return ::ftruncate(descriptor_, static_cast<off_t>(bytes)); }) != 0)
    throw IoError(path_.native(), fmt::format("cannot be cut to {} bytes", bytes), errno);
}

void OutputFile::sync() {
  COPPICE_FAILPOINT("io.fsync");
  const int result = ::fsync(
      descriptor_);  // once: after a failure the kernel may have dropped the dirty pages and a second call would lie
  const int error = errno;
  COPPICE_COUNT_IO("io.fsync", path_);
  if (result != 0) throw IoError(path_.native(), "cannot be synced", error);
}

void OutputFile::close() {
  COPPICE_CHECK(descriptor_ >= 0, "closed twice");
  COPPICE_FAILPOINT("io.close");
  const int result = ::close(std::exchange(descriptor_, -1));
  const int error = errno;
  COPPICE_COUNT_IO("io.close", path_);
  if (result != 0 && error != EINTR)
    throw IoError(path_.native(), "cannot be closed", error);  // Linux has closed it on EINTR
}

void sync_folder(const fs::path& folder) {
  COPPICE_FAILPOINT("io.fsync_folder");
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw IoError(folder.native(), "cannot be opened to be synced", errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  COPPICE_COUNT_IO("io.fsync_folder", folder);
  if (result != 0) throw IoError(folder.native(), "cannot be synced", error);
}

void commit_rename(const fs::path& from, const fs::path& to) {
  if (retry("io.rename", to, [&] { return ::rename(from.c_str(), to.c_str()); }) != 0)
    throw IoError(from.native(), fmt::format("cannot be renamed to {}", printable(to.native())), errno);
  sync_folder(parent_of(to));
}

void remove_temporaries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().native().starts_with(".tmp-")) leftovers.push_back(entry->path());
  if (error && error != std::errc::no_such_file_or_directory)
    throw IoError(folder.native(), "cannot be listed", error.value());
  for (const fs::path& path : leftovers) {
    COPPICE_FAILPOINT("io.remove");
    fs::remove_all(path, error);
    COPPICE_COUNT_IO("io.remove", path);
    if (error) throw IoError(path.native(), "cannot be removed", error.value());
  }
}

void make_folder(const fs::path& folder) {
  COPPICE_FAILPOINT("io.mkdir");
  std::error_code error;
  std::vector<fs::path> missing;
  for (fs::path path = folder; !path.empty() && !fs::exists(path, error); path = path.parent_path())
    missing.push_back(path);
  fs::create_directories(folder, error);
  COPPICE_COUNT_IO("io.mkdir", folder);
  if (!error && !fs::is_directory(folder, error)) error = std::make_error_code(std::errc::not_a_directory);
  if (error) throw IoError(folder.native(), "cannot be created", error.value());
  for (const fs::path& path :
       missing)  // what is committed into a folder is as safe as the folder's own name; a temporary's need not be
    if (!path.filename().native().starts_with(".tmp-")) sync_folder(parent_of(path));
}

void check_writable(const fs::path& folder) {
  const fs::path existing = nearest_existing(folder);
  const fs::path probe = existing / fmt::format(".tmp-writable-{}", ::getpid());
  const int descriptor =
      ::open(probe.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);  // access(2) would tell root yes
  if (descriptor < 0) throw IoError(existing.native(), "nothing can be written here", errno);
  ::close(descriptor);
  if (::unlink(probe.c_str()) != 0) throw IoError(probe.native(), "cannot be removed", errno);
}

uint64_t free_bytes(const fs::path& path) {
  struct statvfs info = {};
  const fs::path existing = nearest_existing(path);
  if (::statvfs(existing.c_str(), &info) != 0) throw IoError(existing.native(), "free space is unknown", errno);
  return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
}

void check_leaf_name(std::string_view name, std::string_view path) {
  const char* why = nullptr;
  if (name.empty()) why = "is empty";
  if (name == "." || name == "..") why = "is no file name";
  if (name.find('/') != std::string_view::npos) why = "contains '/'";
  if (name.size() > 255) why = "is longer than 255 bytes";
  if (printable(name) != name) why = "contains control characters or is not UTF-8";
  if (why != nullptr)
    throw UserError::bad_file(path, fmt::format("the name '{}' {}", printable(name.substr(0, 300)), why));
}

FolderLock::FolderLock(const fs::path& folder) {
  const fs::path path = folder / ".lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0) throw IoError(path.native(), "cannot be opened", errno);
  if (retry("io.lock", path, [&] { return ::flock(descriptor_, LOCK_EX | LOCK_NB); }) != 0) {
    const int error = errno;
    char holder[300] = {};
    const ssize_t got = ::pread(descriptor_, holder, sizeof(holder) - 1, 0);
    ::close(descriptor_);
    if (error != EWOULDBLOCK) throw IoError(path.native(), "cannot be locked", error);
    std::string_view who(holder, got > 0 ? static_cast<size_t>(got) : 0);
    if (who.ends_with('\n')) who.remove_suffix(1);
    throw UserError::folder_locked(
        folder.native(), fmt::format("another run works in this folder: {}", who.empty() ? "(not known yet)" : who));
  }
  char host[HOST_NAME_MAX + 1] = {};
  ::gethostname(host, HOST_NAME_MAX);
  const std::string text = fmt::format("process {} on host {}\n", ::getpid(), host);
  const bool written = ::ftruncate(descriptor_, 0) == 0 &&
                       ::pwrite(descriptor_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
  if (!written) {  // the lock holds without its text; a full disk is found by whoever writes something that matters
    log_warning(fmt::format("{}: the holder's name could not be written: {}", path.native(), std::strerror(errno)));
  }
}

FolderLock::~FolderLock() {
  if (descriptor_ >= 0)
    ::close(descriptor_);  // the file stays: removing it would let a third process lock another inode
}

}  // namespace coppice
