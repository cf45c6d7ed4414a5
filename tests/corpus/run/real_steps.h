// A corpus made by the steps of the table, and what became of its documents.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "src/corpus/run/run_corpus.h"
#include "src/text/byte_source.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

struct RealCorpus {
  ScratchFolder scratch{"corpus"};

  /// in/<source>/<name>.jsonl: documents by id and text.
  void add(const std::string& source, const std::string& name,
           const std::vector<std::pair<std::string, std::string>>& documents) const {
    std::string lines;
    for (const auto& [id, text] : documents) lines += nlohmann::json({{"id", id}, {"text", text}}).dump() + "\n";
    spill(scratch / ("in/" + source + "/" + name + ".jsonl"), lines);
  }

  /// The folders below in/ are the sources; `steps` are [[data.step]] tables.
  CorpusSettings settings(const std::string& steps, const std::string& more = "") const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(scratch / "in")) names.insert(entry.path().filename());
    std::string text = "[data]\n" + more;
    for (const std::string& name : names)
      text += fmt::format("[[data.source]]\nname = \"{}\"\npath = \"{}\"\n", name, (scratch / "in" / name).string());
    spill(scratch / "corpus.toml", text + steps);
    return load_corpus(scratch / "corpus.toml", {}, {});
  }
  void run(const std::string& steps, const std::string& out = "out") const {
    run_corpus(settings(steps), {.out = scratch / out});
  }

  std::set<std::string> kept(const std::string& out = "out") const {
    std::set<std::string> ids;
    for (const nlohmann::json& line : lines_below(scratch / out / "documents")) ids.insert(line["id"]);
    return ids;
  }
  std::map<std::string, nlohmann::json> removed(const std::string& step, const std::string& out = "out") const {
    std::map<std::string, nlohmann::json> by_id;
    for (const nlohmann::json& line : lines_below(scratch / out / "removed" / step)) by_id[line["id"]] = line;
    return by_id;
  }

  static std::vector<nlohmann::json> lines_below(const std::filesystem::path& folder) {
    std::vector<nlohmann::json> lines;
    if (!std::filesystem::exists(folder)) return lines;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
      if (!entry.is_regular_file()) continue;
      LineReader reader(entry.path(), ByteSource::Coding::zstd, uint64_t{64} << 20);
      for (std::string_view line; reader.next(line);) lines.push_back(nlohmann::json::parse(line));
    }
    return lines;
  }
};

}  // namespace coppice::test
