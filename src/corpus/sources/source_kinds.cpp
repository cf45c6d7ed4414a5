#include "src/corpus/sources/source_kinds.h"

#include <algorithm>
#include <array>

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
  std::string name = lower_ascii(path.filename().string());
  const bool is_packed = coding_of(path) != ByteSource::Coding::plain;
  if (is_packed) name.resize(name.rfind('.'));
  const auto found = std::ranges::find_if(
      kEndings, [&](const Ending& row) { return name.ends_with(row.ending) && (row.may_be_packed || !is_packed); });
  return found == kEndings.end() ? std::string_view() : found->kind;
}

}  // namespace coppice
