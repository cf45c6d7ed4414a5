// The files of all sources: what a path names, or what lies below a folder and matches.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/corpus/sources/path_pattern.h"
#include "src/corpus/sources/source.h"
#include "src/corpus/sources/source_kinds.h"
#include "src/text/documents_folder.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const SourceOptions& source, const std::string& message) {
  throw UserError::recipe(source.where, fmt::format("source '{}': {}", source.name, message));
}

/// Regular files below a folder by their relative path, cut into names; links, devices and what begins with a dot are
/// passed over, folders below `depth` too.
template <class Visit>
void for_each_below(const SourceOptions& source, const fs::path& folder, size_t depth, const Visit& visit) {
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    const fs::file_status status = entry->symlink_status(ignored);
    if (fs::is_directory(status) && static_cast<size_t>(entry.depth()) + 1 >= depth) entry.disable_recursion_pending();
    if (!fs::is_regular_file(status)) continue;
    std::vector<std::string> names;
    for (const fs::path& name : entry->path().lexically_relative(folder)) names.push_back(name.string());
    visit(entry->path(), names);
  }
  if (error) refuse(source, fmt::format("cannot list the folder '{}': {}", folder.string(), error.message()));
}

class SourceLister {
 public:
  SourceLister(const SourceOptions& source, uint32_t number, std::vector<SourceFile>& files)
      : source_(source), number_(number), files_(files) {}

  void list() {
    if (!source_.kind.empty() && !is_source_kind(source_.kind))
      refuse(source_, fmt::format("kind: got '{}', expected {}", source_.kind, kSourceKinds));
    if (source_.path.empty()) refuse(source_, "path: a file, a folder or a pattern is missing");
    const size_t before = files_.size();
    std::error_code error;
    const fs::file_status status = fs::status(source_.path, error);
    if (fs::exists(status) && !error)
      fs::is_directory(status) ? list_folder() : list_file(fs::is_regular_file(status));
    else if (is_pattern(source_.path))
      list_pattern();
    else
      refuse(source_, fmt::format("no such file or folder: '{}'{}", source_.path, searched_from(source_.path)));
    if (files_.size() == before)
      refuse(source_, fmt::format("'{}' holds no file of {}{}", source_.path,
                                  source_.kind.empty() ? "a kind that is known by its ending; name the kind" : "kind ",
                                  source_.kind));
  }

 private:
  void add(const fs::path& path, const std::string& name, std::string_view kind) {
    files_.push_back({source_.name + "/" + name, path, std::string(kind), number_});
  }

  void list_file(bool is_regular) {
    const fs::path path = source_.path;
    const std::string_view kind = source_.kind.empty() ? source_kind_of(path) : source_.kind;
    if (!is_regular) refuse(source_, fmt::format("'{}' is neither a file nor a folder", source_.path));
    if (kind.empty())
      refuse(source_, fmt::format("the ending of '{}' says no kind; name it: kind = {}", source_.path, kSourceKinds));
    add(path, path.filename().string(), kind);
  }

  /// Files of the source's kind by their ending; every file for code. Of a corpus: its documents.
  void list_folder() {
    for_each_below(source_, documents_folder(source_.path), fs::path::string_type::npos,
                   [&](const fs::path& path, const auto& names) {
                     if (!matches_pattern({"**"}, names)) return;  // hidden
                     const std::string_view kind = source_.kind == "code" ? "code" : source_kind_of(path);
                     if (!kind.empty() && (source_.kind.empty() || kind == source_.kind))
                       add(path, joined(names), kind);
                   });
  }

  /// Every file that matches, where a kind is named; those of a known ending otherwise.
  void list_pattern() {
    const SplitPattern pattern = split_pattern(source_.path);
    if (std::error_code error; !fs::is_directory(pattern.folder, error))
      refuse(source_, fmt::format("no such folder: '{}'{}", pattern.folder.string(), searched_from(pattern.folder)));
    const bool is_deep = std::ranges::find(pattern.names, "**") != pattern.names.end();
    for_each_below(source_, pattern.folder, is_deep ? fs::path::string_type::npos : pattern.names.size(),
                   [&](const fs::path& path, const auto& names) {
                     if (!matches_pattern(pattern.names, names)) return;
                     const std::string_view kind = source_.kind.empty() ? source_kind_of(path) : source_.kind;
                     if (!kind.empty()) add(path, joined(names), kind);
                   });
  }

  static std::string joined(const std::vector<std::string>& names) {
    std::string all;
    for (const std::string& name : names) all += (all.empty() ? "" : "/") + name;
    return all;
  }

  const SourceOptions& source_;
  const uint32_t number_;
  std::vector<SourceFile>& files_;
};

constexpr size_t kMaxMembers = 1000;
constexpr uint64_t kMaxBundleBytes = 64'000'000;

bool is_one_document(const SourceFile& file) {
  return file.kind == "html" || file.kind == "text" || file.kind == "code";
}

/// Of sorted files: a bundle for every run of small ones, which keeps their order.
std::vector<SourceFile> bundled(std::vector<SourceFile> files, const std::vector<SourceOptions>& sources) {
  std::vector<SourceFile> bundles;
  std::vector<uint32_t> numbers(sources.size(), 0);
  uint64_t bytes = 0;
  for (SourceFile& file : files) {
    if (!is_one_document(file)) {
      bundles.push_back(std::move(file));
      continue;
    }
    const uint64_t of_file = stored_bytes(file);
    const bool goes_on = !bundles.empty() && !bundles.back().members.empty() && bundles.back().source == file.source &&
                         bundles.back().members.size() < kMaxMembers && bytes + of_file <= kMaxBundleBytes;
    if (!goes_on) {
      const SourceOptions& source = sources[file.source];
      bundles.push_back(
          {fmt::format("{}/files-{:05}", source.name, ++numbers[file.source]), source.path, file.kind, file.source});
      bytes = 0;
    }
    bytes += of_file;
    bundles.back().members.push_back(std::move(file));
  }
  for (SourceFile& bundle : bundles)
    if (bundle.members.size() == 1) {
      SourceFile alone = std::move(bundle.members.front());
      bundle = std::move(alone);
    }
  std::ranges::sort(bundles, {}, &SourceFile::name);
  return bundles;
}

void check_names_differ(const std::vector<SourceFile>& files, const std::vector<SourceOptions>& sources) {
  const auto twin = std::ranges::adjacent_find(files, {}, &SourceFile::name);
  if (twin != files.end())
    refuse(sources[twin[1].source],
           fmt::format("'{}' and '{}' are both called '{}'; give each source a name of its own", twin[0].path.string(),
                       twin[1].path.string(), twin->name));
}

/// Names without endings, but where two files would share one, or one is called so in full.
void name_outputs(std::vector<SourceFile>& files) {
  std::map<std::string, int> taken;
  for (SourceFile& file : files) {
    file.output = file.members.empty() ? without_ending(file.name) : file.name;
    ++taken[file.output];
    if (file.output != file.name) ++taken[file.name];
  }
  for (SourceFile& file : files)
    if (taken[file.output] > 1) file.output = file.name;
}

}  // namespace

uint64_t stored_bytes(const SourceFile& file) {
  const auto size_of = [](const fs::path& path) {
    std::error_code error;
    const uintmax_t bytes = fs::file_size(path, error);
    return error ? 0 : static_cast<uint64_t>(bytes);
  };
  if (file.members.empty()) return size_of(file.path);
  uint64_t bytes = 0;
  for (const SourceFile& member : file.members) bytes += size_of(member.path);
  return bytes;
}

std::vector<SourceFile> list_source_files(const std::vector<SourceOptions>& sources) {
  std::vector<SourceFile> files;
  for (uint32_t number = 0; number < sources.size(); ++number) SourceLister(sources[number], number, files).list();
  std::ranges::sort(files, {}, &SourceFile::name);
  check_names_differ(files, sources);
  std::vector<SourceFile> bundles = bundled(std::move(files), sources);
  check_names_differ(bundles, sources);
  name_outputs(bundles);
  return bundles;
}

}  // namespace coppice
