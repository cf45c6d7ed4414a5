#include "src/text/file_endings.h"

#include <algorithm>
#include <array>
#include <string>

namespace coppice {
namespace {

using Kind = FileEnding::Kind;
using Coding = ByteSource::Coding;
constexpr std::array<FileEnding, 10> kEndings = {{{".txt", Kind::text, Coding::plain},
                                                  {".jsonl", Kind::lines, Coding::plain},
                                                  {".jsonl.gz", Kind::lines, Coding::gzip},
                                                  {".jsonl.zst", Kind::lines, Coding::zstd},
                                                  {".ndjson", Kind::lines, Coding::plain},
                                                  {".ndjson.gz", Kind::lines, Coding::gzip},
                                                  {".ndjson.zst", Kind::lines, Coding::zstd},
                                                  {".json", Kind::json, Coding::plain},
                                                  {".json.gz", Kind::json, Coding::gzip},
                                                  {".json.zst", Kind::json, Coding::zstd}}};

}  // namespace

const FileEnding* ending_of(const std::filesystem::path& path) {
  std::string name = path.filename().string();
  std::ranges::transform(name, name.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  const auto found =
      std::ranges::find_if(kEndings, [&](const FileEnding& ending) { return name.ends_with(ending.name); });
  return found == kEndings.end() ? nullptr : &*found;
}

}  // namespace coppice
