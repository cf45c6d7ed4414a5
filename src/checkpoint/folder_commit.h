// The last act of writing a folder: it appears under its final name whole, and replaces an older one of that name in
// one step.
#pragma once

#include <filesystem>

namespace coppice {

/// An empty `.tmp-<name>-<process>` beside `final_folder` (whose parents are made); what a former attempt left there is
/// removed. IoError.
std::filesystem::path start_temporary_folder(const std::filesystem::path& final_folder);

/// Syncs `temporary` and renames it to `folder`. An existing folder is exchanged in one system call and then removed,
/// so that at every instant either the old or the new one stands whole under the name. IoError on failure.
void commit_folder(const std::filesystem::path& temporary, const std::filesystem::path& folder);

/// Removes a folder tree on an error path: no exception, what stays behind is a `.tmp-*` that the next start removes.
void discard_folder(const std::filesystem::path& temporary) noexcept;

}  // namespace coppice
