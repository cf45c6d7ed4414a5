// Reading one made file as a source.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "src/corpus/sources/source.h"

namespace coppice::test {

struct Read {
  std::vector<Document> documents;
  SourceReport report;
  uint64_t bytes_read = 0;
};

inline Read read_source(const std::filesystem::path& path, const std::string& kind, const ReadLimits& limits = {},
                        const std::string& text = "text") {
  SourceOptions source{.name = "s", .where = "corpus.toml:3", .path = path.string(), .kind = kind, .text = text};
  source.license = "CC0-1.0";
  const std::vector<SourceFile> files = list_source_files({source});
  Read read;
  read.report = read_source_file(
      files.at(0), source, limits, [&](Document&& document) { read.documents.push_back(std::move(document)); },
      &read.bytes_read);
  return read;
}

using Counts = std::map<std::string, uint64_t>;

}  // namespace coppice::test
