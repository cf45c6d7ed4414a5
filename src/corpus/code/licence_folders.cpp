#include "src/corpus/code/licence_folders.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/code/licence_text.h"

namespace coppice {
namespace {

constexpr uint64_t kMaxLicenceBytes = uint64_t{256} << 10;
constexpr const char* kUnknown = "NOASSERTION";  // SPDX: there is something, and nobody says what

std::string_view folder_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

}  // namespace

bool is_licence_file(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  for (const std::string_view stem : {"LICENSE", "LICENCE", "COPYING", "UNLICENSE"})
    if (upper.starts_with(stem))
      return upper.size() == stem.size() || std::string_view(".-_").find(upper[stem.size()]) != std::string_view::npos;
  return false;
}

std::string licence_of_text(std::string_view text, double min_dice) {
  if (std::string expression = find_spdx_line(text); !expression.empty()) return expression;
  LicenceMatch match = match_licence_text(text);
  return match.dice >= min_dice && !match.has_additions ? std::move(match.id) : kUnknown;
}

LicenceFolders::LicenceFolders(const std::filesystem::path& root, double min_dice) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::recursive_directory_iterator entry(root, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!is_licence_file(name) || entry->is_symlink() || !entry->is_regular_file()) continue;
    const std::string relative = entry->path().lexically_relative(root).generic_string();
    by_folder_[std::string(folder_of(relative))].push_back(
        entry->file_size() > kMaxLicenceBytes ? kUnknown : licence_of_text(read_file(entry->path()), min_dice));
  }
  if (error) throw UserError::bad_file(root.native(), fmt::format("cannot be listed: {}", error.message()));
  for (auto& [folder, licences] : by_folder_) {
    std::ranges::sort(licences);
    licences.erase(std::unique(licences.begin(), licences.end()), licences.end());
  }
}

const std::vector<std::string>& LicenceFolders::of(std::string_view path) const {
  static const std::vector<std::string> none;
  for (std::string_view folder = folder_of(path);; folder = folder_of(folder)) {
    if (const auto found = by_folder_.find(folder); found != by_folder_.end()) return found->second;
    if (folder.empty()) return none;
  }
}

std::string LicenceFolders::fingerprint() const {
  std::string all;
  for (const auto& [folder, licences] : by_folder_) all += fmt::format("{}\n{}\n", folder, fmt::join(licences, "\n"));
  return sha256_hex(all);
}

}  // namespace coppice
