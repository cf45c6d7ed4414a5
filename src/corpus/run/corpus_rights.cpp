#include "src/corpus/run/corpus_rights.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/files.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kMaxBytes = uint64_t{64} << 20;

/// The sources at a path below a corpus: `documents/<source>/...`, `domains/<domain>/<source>/...`; empty: all.
std::vector<std::string> sources_at(const fs::path& corpus, const fs::path& below) {
  std::vector<fs::path> parts(below.begin(), below.end());
  std::erase(parts, fs::path());  // behind a slash at the end
  if (parts.size() > 1 && parts[0] == "documents") return {parts[1].string()};
  if (parts.size() > 2 && parts[0] == "domains") return {parts[2].string()};
  std::vector<std::string> names;
  if (parts.size() == 2 && parts[0] == "domains")
    for (const auto& entry : fs::directory_iterator(corpus / below)) names.push_back(entry.path().filename().string());
  return names;
}

/// A run has a file of the same name, of another format.
bool tells_sources(const fs::path& folder, const fs::path& told_by) {
  if (!fs::is_regular_file(told_by)) return false;
  if (fs::is_directory(folder / "documents")) return true;
  return fs::file_size(told_by) <= kMaxBytes &&
         read_file(told_by, kMaxBytes).find(fmt::format("\"format\":\"{}\"", kCorpusSourcesFormat)) !=
             std::string::npos;
}

}  // namespace

std::vector<SourceRights> corpus_rights(const fs::path& path) {
  const fs::path whole = fs::absolute(path).lexically_normal();
  for (fs::path corpus = whole; corpus.has_relative_path(); corpus = corpus.parent_path()) {
    const fs::path told_by = corpus / "sources.json";
    if (!tells_sources(corpus, told_by)) continue;
    const Json told = read_sealed(told_by, kCorpusSourcesFormat, 1);
    std::vector<SourceRights> rights = read_rights(array_at(told, "sources", told_by.string()), told_by.string());
    const std::vector<std::string> names = sources_at(corpus, whole.lexically_relative(corpus));
    if (!names.empty())
      std::erase_if(rights,
                    [&](const SourceRights& source) { return std::ranges::find(names, source.source) == names.end(); });
    return rights;
  }
  return {};
}

}  // namespace coppice
