#include "src/corpus/code/licence_folders.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/code/languages.h"
#include "src/corpus/code/licence_text.h"
#include "src/text/ascii_case.h"

namespace coppice {
namespace {

constexpr uint64_t kMaxLicenceBytes = uint64_t{256} << 10;
constexpr const char* kUnknown = "NOASSERTION";  // SPDX: there is something, and nobody says what

std::string_view folder_of(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : path.substr(0, slash);
}

/// Of files that are called so for what they do: `license.json`, `license-check.php`.
bool has_data_ending(std::string_view name) {
  constexpr std::string_view kEndings =
      " .asm .bat .cfg .clj .cmake .conf .css .csv .dart .erb .ex .exs .gif .gradle .hs .ico .in .ini .jpeg .jpg .json "
      ".key .less .lua .php .pl .pm .png .po .properties .proto .ps1 .r .resx .scala .scss .sql .svelte .svg .toml "
      ".tpl "
      ".tsv .vb .vue .xaml .xml .yaml .yml ";
  const size_t dot = name.rfind('.');
  return dot != std::string_view::npos &&
         kEndings.find(" " + std::string(name.substr(dot)) + " ") != std::string_view::npos;
}

}  // namespace

bool is_licence_file(std::string_view name) {
  const std::string lower = lower_ascii(name);
  for (const std::string_view stem : {"license", "licence", "copying", "unlicense"}) {
    if (!lower.starts_with(stem)) continue;
    const std::string_view rest = std::string_view(lower).substr(stem.size());
    if (rest.empty()) return true;
    return std::string_view(".-_").find(rest.front()) != std::string_view::npos && !has_source_ending(lower) &&
           !has_data_ending(lower);
  }
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
