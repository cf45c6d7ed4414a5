// Where tests find the project's files and its programs: where they were built, or, of a bundle that went to another
// machine, where the environment says.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace coppice {

inline std::filesystem::path folder_by(const char* variable, const char* built) {
  const char* const given = std::getenv(variable);
  return given != nullptr && *given != '\0' ? given : built;
}
inline std::filesystem::path source_folder() { return folder_by("COPPICE_SOURCE_DIR", COPPICE_SOURCE_DIR); }
inline std::filesystem::path binary_folder() { return folder_by("COPPICE_BINARY_DIR", COPPICE_BINARY_DIR); }

}  // namespace coppice
