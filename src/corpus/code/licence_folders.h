// Licences of repositories that lie on disk: LICENSE, LICENCE, COPYING and UNLICENSE files.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// LICENSE, LICENCE, COPYING or UNLICENSE, in any case, alone or before `.`, `-` or `_` and more, as in LICENSE.txt,
/// LICENSE-MIT, COPYING.LESSER; not what ends as source code, data or pictures do: license.go, license_manager.py.
bool is_licence_file(std::string_view name);
/// The expression of an SPDX line, else the known licence whose text it is (Dice coefficient at least `min_dice`, no
/// additions), else NOASSERTION.
std::string licence_of_text(std::string_view text, double min_dice);

class LicenceFolders {
 public:
  LicenceFolders() = default;
  /// Reads the licence files below a folder; links are not followed, files above 256 kB have no licence we know.
  /// UserError::bad_file for a folder that cannot be listed.
  LicenceFolders(const std::filesystem::path& root, double min_dice);

  /// The licences in the folder of a file, or in the nearest above it that has some; empty where none has. `path` is
  /// relative to the root, with `/`.
  const std::vector<std::string>& of(std::string_view path) const;
  /// Changes with what was found.
  std::string fingerprint() const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> by_folder_;  // "" is the root; sorted
};

}  // namespace coppice
