#include "src/corpus/sources/source_kinds.h"

#include <algorithm>
#include <array>
#include <utility>

#include "src/text/ascii_case.h"

namespace coppice {

namespace {

struct Ending {
  std::string_view ending, kind;
  bool may_be_packed = true;
};

constexpr std::array<Ending, 14> kEndings = {{{".warc.wet", "wet"},
                                              {".wet", "wet"},
                                              {".warc", "warc"},
                                              {".jsonl", "jsonl"},
                                              {".ndjson", "jsonl"},
                                              {".json", "jsonl"},
                                              {".parquet", "parquet", false},
                                              {".html", "html"},
                                              {".htm", "html"},
                                              {".xhtml", "html"},
                                              {".txt", "text"},
                                              {".text", "text"},
                                              {".md", "text"},
                                              {".rst", "text"}}};

/// The row of a name's ending, and how many bytes it takes with that of a packing; nullptr and 0 without one.
std::pair<const Ending*, size_t> ending_of(const std::filesystem::path& path) {
  const std::string whole = lower_ascii(path.filename().string());
  const bool is_packed = coding_of(path) != ByteSource::Coding::plain;
  const std::string name = is_packed ? whole.substr(0, whole.rfind('.')) : whole;
  const auto found = std::ranges::find_if(
      kEndings, [&](const Ending& row) { return name.ends_with(row.ending) && (row.may_be_packed || !is_packed); });
  if (found == kEndings.end()) return {nullptr, 0};
  return {&*found, whole.size() - name.size() + found->ending.size()};
}

}  // namespace

bool is_source_kind(std::string_view kind) {
  return kind == "code" || std::ranges::find(kEndings, kind, &Ending::kind) != kEndings.end();
}

ByteSource::Coding coding_of(const std::filesystem::path& path) {
  const std::string name = lower_ascii(path.filename().string());
  return name.ends_with(".gz")    ? ByteSource::Coding::gzip
         : name.ends_with(".zst") ? ByteSource::Coding::zstd
                                  : ByteSource::Coding::plain;
}

std::string_view source_kind_of(const std::filesystem::path& path) {
  const Ending* ending = ending_of(path).first;
  return ending == nullptr ? std::string_view() : ending->kind;
}

std::string without_ending(const std::string& name) {
  const size_t bytes = ending_of(name).second;
  const size_t file_name = name.size() - std::filesystem::path(name).filename().string().size();
  return name.size() - bytes > file_name ? name.substr(0, name.size() - bytes) : name;  // `.jsonl` alone keeps its own
}

}  // namespace coppice
