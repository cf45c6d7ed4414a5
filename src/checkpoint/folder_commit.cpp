// Commit of a folder by rename; renameat2(RENAME_EXCHANGE) where an older folder of the same name stands.
#include "src/checkpoint/folder_commit.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

/// The folder that holds `path`, which may be relative or end with a slash.
fs::path folder_of(const fs::path& path) {
  const fs::path parent = path.has_filename() ? path.parent_path() : path.parent_path().parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

}  // namespace

fs::path start_temporary_folder(const fs::path& final_folder) {
  make_folder(folder_of(final_folder));
  fs::path temporary = temporary_path(final_folder);
  std::error_code error;
  fs::remove_all(temporary, error);
  if (error) throw IoError(temporary.string(), "cannot remove what a former attempt left", error.value());
  make_folder(temporary);
  return temporary;
}

void commit_folder(const fs::path& temporary, const fs::path& folder) {
  const fs::path final_folder = folder.has_filename() ? folder : folder.parent_path();
  sync_folder(temporary);
  std::error_code error;
  if (!fs::exists(fs::symlink_status(final_folder, error))) {
    commit_rename(temporary, final_folder);
    return;
  }
  COPPICE_FAILPOINT("io.rename");
  // An older folder of that name: rename(2) refuses a folder that is not empty, the exchange has no instant without
  // one.
  const int result = ::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_folder.c_str(), RENAME_EXCHANGE);
  const int exchange_error = errno;
  COPPICE_COUNT_IO("io.rename", final_folder);
  if (result == 0) {
    sync_folder(folder_of(final_folder));
    discard_folder(temporary);
    return;
  }
  if (exchange_error != EINVAL && exchange_error != ENOSYS)
    throw IoError(final_folder.string(), "cannot replace the folder", exchange_error);
  // File systems without exchange (some network ones): the old folder steps aside under a name that no start removes.
  fs::path aside = final_folder;
  aside += ".replaced";
  fs::remove_all(aside, error);
  commit_rename(final_folder, aside);
  commit_rename(temporary, final_folder);
  discard_folder(aside);
}

void discard_folder(const fs::path& temporary) noexcept {
  std::error_code error;
  fs::remove_all(temporary, error);
}

}  // namespace coppice
