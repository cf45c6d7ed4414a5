// A group step run over invented files as a corpus does it: notes, parts, settling, decisions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "src/cli/options.h"
#include "src/corpus/step.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

inline const StepKind& step_kind(const std::string& kind) {
  for (const StepKind* row : step_kinds())
    if (row->kind == kind) return *row;
  throw InternalError("no step " + kind);
}

/// The step of these lines of TOML.
inline std::shared_ptr<const GroupStep> group_step(const std::string& kind, const std::string& options) {
  const ScratchFolder folder("options");
  OptionTable table = RecipeSource::load(folder.write("step.toml", options), {}, {}).root();
  const std::shared_ptr<const Step> step = step_kind(kind).read(table);
  table.finish();
  return std::dynamic_pointer_cast<const GroupStep>(step);
}

struct Looked {
  Document document;
  std::string rule, details;  // the first rule that drops it; empty: it stays
};

struct GroupFile {
  std::vector<Document> documents;
  uint32_t source = 0;
};

struct GroupRun {
  std::vector<GroupFile> files;
  std::vector<int> priorities = {1};
  uint64_t memory_bytes = uint64_t{1} << 28;
  std::vector<uint32_t> note_order = {};  // of files; empty: ascending

  GroupPlace place(const std::filesystem::path& folder) const {
    GroupPlace place{.folder = folder, .source_priorities = priorities, .memory_bytes = memory_bytes};
    for (size_t i = 0; i < files.size(); ++i) {
      place.files.push_back("file" + std::to_string(i));
      place.sources.push_back(files[i].source);
    }
    for (size_t i = 0; i < priorities.size(); ++i) place.source_names.push_back("source" + std::to_string(i));
    return place;
  }

  void note(const GroupStep& step, const std::filesystem::path& folder) const {
    std::vector<uint32_t> order = note_order;
    if (order.empty()) {
      order.resize(files.size());
      std::iota(order.begin(), order.end(), 0);
    }
    for (const uint32_t file : order) {
      const std::unique_ptr<GroupNotes> notes = step.note(place(folder), file);
      for (const Document& document : files[file].documents) notes->add(document);
      notes->commit();
    }
  }

  std::vector<std::vector<Looked>> decide(const GroupStep& step, const std::filesystem::path& folder) const {
    const std::vector<Rule> rules = step.rules();
    std::vector<std::vector<Looked>> all;
    for (uint32_t file = 0; file < files.size(); ++file) {
      const std::unique_ptr<GroupDecisions> decisions = step.decide(place(folder), file);
      auto& looked = all.emplace_back();
      for (const Document& document : files[file].documents) {
        Looked& one = looked.emplace_back(Looked{.document = document});
        std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
        decisions->look(one.document, values, one.details);
        for (size_t i = 0; i < rules.size() && one.rule.empty(); ++i)
          if (rules[i].drops(values[i])) one.rule = rules[i].name;
      }
    }
    return all;
  }

  /// Of each file the documents.
  std::vector<std::vector<Looked>> run(const GroupStep& step, const std::filesystem::path& folder) const {
    note(step, folder);
    const uint32_t parts = step.num_parts(place(folder));
    for (uint32_t part = parts; part-- > 0;) step.reduce(place(folder), part);
    step.settle(place(folder));
    return decide(step, folder);
  }
};

inline Document document(const std::string& id, const std::string& text) {
  Document document;
  document.id = id;
  document.text = text;
  return document;
}

/// Ids of documents that stay, in their order.
inline std::vector<std::string> kept_ids(const std::vector<std::vector<Looked>>& files) {
  std::vector<std::string> ids;
  for (const auto& file : files)
    for (const Looked& one : file)
      if (one.rule.empty()) ids.push_back(one.document.id);
  return ids;
}

}  // namespace coppice::test
