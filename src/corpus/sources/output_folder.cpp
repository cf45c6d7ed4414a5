// Whether what a corpus writes would be read as one of its sources.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <system_error>

#include "src/base/errors.h"
#include "src/corpus/sources/path_pattern.h"
#include "src/corpus/sources/source.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEndings[] = {".jsonl.zst", ".json", ".h5", ".md", ".html"};  // of what a corpus holds

/// Without links, `..` and a slash at the end; of what does not exist yet as far as it does.
fs::path plain(const fs::path& path) {
  std::error_code error;
  fs::path absolute = fs::absolute(path, error);
  if (error) absolute = path;
  const fs::path canonical = fs::weakly_canonical(absolute, error);
  const fs::path normal = error ? absolute.lexically_normal() : canonical;
  return normal.has_filename() ? normal : normal.parent_path();
}

/// The names that lead from a folder to what lies in it, none to itself; nothing for what lies elsewhere.
std::optional<std::vector<std::string>> names_below(const fs::path& folder, const fs::path& path) {
  std::vector<std::string> names;
  for (const fs::path& name : path.lexically_relative(folder))
    if (name != ".") names.push_back(name.string());
  if (path.lexically_relative(folder).empty() || (!names.empty() && names.front() == "..")) return std::nullopt;
  return names;
}

/// Whether a pattern can match a file in the folder of these names: deep enough, and of an ending that one there has.
bool reaches(const std::vector<std::string>& pattern, const std::vector<std::string>& folder) {
  if (std::ranges::find(pattern, "**") == pattern.end()) {
    if (pattern.size() <= folder.size()) return false;
    if (!matches_pattern({pattern.begin(), pattern.begin() + static_cast<std::ptrdiff_t>(folder.size())}, folder))
      return false;
  }
  const std::string& last = pattern.back();
  const std::string_view tail = std::string_view(last).substr(last.find_last_of("*?") + 1);
  return std::ranges::any_of(kEndings,
                             [&](std::string_view ending) { return tail.ends_with(ending) || ending.ends_with(tail); });
}

}  // namespace

void check_output_apart(const std::vector<SourceOptions>& sources, const fs::path& out) {
  constexpr const char* kRemedy = "name another folder (--out; corpus_folder of a recipe)";
  const fs::path corpus = plain(out);
  for (const SourceOptions& source : sources) {
    if (source.path.empty()) continue;  // whoever lists the files by another way
    std::error_code error;
    const bool by_pattern = is_pattern(source.path) && !fs::exists(source.path, error);
    const SplitPattern pattern = by_pattern ? split_pattern(source.path) : SplitPattern{source.path, {}};
    const fs::path root = plain(pattern.folder);
    const auto corpus_in_source = names_below(root, corpus);
    if (corpus_in_source && (!by_pattern || reaches(pattern.names, *corpus_in_source)))
      throw UserError::recipe(source.where,
                              fmt::format("source '{}': its folder '{}' holds the corpus' folder '{}', which would be "
                                          "read as a source; {}",
                                          source.name, root.string(), out.string(), kRemedy));
    if (names_below(corpus, root))
      throw UserError::recipe(source.where, fmt::format("source '{}': '{}' lies in the corpus' folder '{}'; {}",
                                                        source.name, source.path, out.string(), kRemedy));
  }
}

void check_output_apart(const std::vector<fs::path>& inputs, const fs::path& out) {
  std::vector<SourceOptions> sources;
  for (const fs::path& input : inputs)
    sources.push_back({.name = input.filename().string(), .where = "--output", .path = input.string()});
  check_output_apart(sources, out);
}

}  // namespace coppice
