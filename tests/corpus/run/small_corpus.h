// A corpus of a few lines, and folders compared file by file.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "src/corpus/run/run_corpus.h"
#include "src/text/byte_source.h"
#include "tests/corpus/run/small_steps.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

namespace fs = std::filesystem;

struct SmallCorpus {
  ScratchFolder scratch{"corpus"};

  /// A document a text, ids <file>#<line>.
  void add(const std::string& file, const std::vector<std::string>& texts) const {
    std::string lines;
    for (size_t i = 0; i < texts.size(); ++i)
      lines += fmt::format("{{\"id\":\"{}#{}\",\"text\":\"{}\"}}\n", file, i + 1, texts[i]);
    spill(scratch / "in" / file, lines);
  }
  CorpusSettings settings(const std::string& steps, const std::string& more = "") const {
    spill(scratch / "corpus.toml",
          fmt::format("[data]\n{}\nsource = [\n  {{ name = \"a\", path = \"{}/in/a\" }},\n  {{ name = \"b\", path = "
                      "\"{}/in/b\" }},\n]\nstep = [\n{}]\n",
                      more, scratch.path.string(), scratch.path.string(), steps));
    return load_corpus(scratch / "corpus.toml", {}, {}, kSmallSteps);
  }
  CorpusRequest request(const std::string& out, uint32_t task = 0, uint32_t tasks = 1) const {
    return {.out = scratch / out, .share = {task, tasks}};
  }
};

/// Every file below a folder by its relative name, but for locks.
inline std::map<std::string, std::string> files_below(const fs::path& folder) {
  std::map<std::string, std::string> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[entry.path().lexically_relative(folder).generic_string()] = slurp(entry.path());
  return files;
}

inline std::string unpacked(const fs::path& path) {
  ByteSource source(path, ByteSource::Coding::zstd, ByteSource::Ratio::any);
  std::string text;
  for (std::string_view block = source.next(); !block.empty(); block = source.next()) text += block;
  return text;
}

}  // namespace coppice::test
