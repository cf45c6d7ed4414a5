// Between two passes: group steps decide from what they have noted of all files.
#pragma once

#include <functional>
#include <vector>

#include "src/corpus/run/corpus_folder.h"
#include "src/corpus/run/file_pass.h"
#include "src/corpus/run/passes.h"
#include "src/corpus/run/task_share.h"

namespace coppice {

/// The places of all group steps. What is handed in must outlive them: GroupPlace::left reads it.
std::vector<GroupFiles> make_group_places(const CorpusSettings& settings, const std::vector<SourceFile>& files,
                                          const std::vector<Pass>& passes, const CorpusFolder& folder);

/// Waits until `done` of `total` is all, or throws Stopped: "not yet: 41 of 64 files".
using Await = std::function<void(const std::string& what, size_t total, const std::function<size_t()>& done)>;

/// The decisions in front of a pass: the parts of this task, then, by whoever finds all parts there, the settling.
void settle_groups(const CorpusSettings& settings, const Pass& pass, const CorpusFolder& folder,
                   const std::vector<GroupFiles>& groups, const TaskShare& share, const Await& await);

}  // namespace coppice
