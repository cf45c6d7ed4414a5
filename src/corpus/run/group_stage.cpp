#include "src/corpus/run/group_stage.h"

#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/file_lock.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSettled = "settled";

std::string part_mark(uint32_t part, uint32_t parts) { return fmt::format("part-{}-of-{}", part, parts); }

void set_mark(const fs::path& mark) {
  make_folder(mark.parent_path());
  write_file_atomically(mark, "");
}

void reduce_parts(const CorpusStep& step, const CorpusFolder& folder, const GroupPlace& place, uint32_t parts,
                  const TaskShare& share) {
  Progress progress(step.name, parts, "part");
  for (uint32_t part = 0; part < parts; ++part) {
    const fs::path mark = folder.mark(step, part_mark(part, parts));
    if (!share.owns(part) || fs::exists(mark)) continue;
    if (stop_requested())
      throw Stopped(
          fmt::format("{}: stopped after {} of {} parts, which are kept; run again to go on", step.name, part, parts));
    step.by_group()->reduce(place, part);
    (void)COPPICE_FAILPOINT("corpus.after_reduce");
    set_mark(mark);
    progress.update(part + 1, {});
  }
}

/// By the task that gets the lock. One that waits asks for it again and again: whoever has it may be killed.
void settle(const CorpusStep& step, const CorpusFolder& folder, const GroupPlace& place, const Await& await) {
  const fs::path mark = folder.mark(step, kSettled);
  make_folder(mark.parent_path());
  std::unique_ptr<FileLock> lock;
  await(fmt::format("decisions of '{}'", step.name), 1, [&] {
    if (lock == nullptr && !fs::exists(mark)) lock = FileLock::try_take(mark.parent_path() / ".lock");
    return size_t{lock != nullptr || fs::exists(mark)};
  });
  if (fs::exists(mark)) return;
  (void)COPPICE_FAILPOINT("corpus.before_settle");
  step.by_group()->settle(place);
  (void)COPPICE_FAILPOINT("corpus.after_settle");
  set_mark(mark);
}

}  // namespace

std::vector<GroupFiles> make_group_places(const CorpusSettings& settings, const std::vector<SourceFile>& files,
                                          const std::vector<Pass>& passes, const CorpusFolder& folder) {
  std::vector<GroupFiles> groups(settings.steps.size());
  std::vector<std::vector<uint32_t>> numbers(settings.steps.size());  // of the source files of each step
  for (size_t i = 0; i < groups.size(); ++i) {
    const CorpusStep& step = settings.steps[i];
    GroupPlace& place = groups[i].place;
    place.folder = folder.group(step);
    place.memory_bytes = settings.memory_bytes;
    for (const SourceOptions& source : settings.sources) {
      place.source_priorities.push_back(static_cast<int>(source.priority));
      place.source_names.push_back(source.name);
    }
    for (size_t file = 0; file < files.size(); ++file) {
      const bool looks = step.looks_at(settings.sources[files[file].source]);
      groups[i].number_of.push_back(looks ? static_cast<int64_t>(place.files.size()) : -1);
      if (!looks) continue;
      numbers[i].push_back(static_cast<uint32_t>(file));
      place.files.push_back(files[file].name);
      place.sources.push_back(files[file].source);
    }
  }
  for (size_t pass = 1; pass < passes.size(); ++pass) {
    const std::vector<size_t>& row = passes[pass].decided;
    for (size_t k = 1; k < row.size(); ++k) {
      const std::vector<size_t> before(row.begin(), row.begin() + static_cast<int64_t>(k));
      const GroupFiles* all = groups.data();  // does not move any more
      groups[row[k]].place.left = [&, all, before, pass, of = numbers[row[k]]](uint32_t file) {
        const uint32_t number = of.at(file);
        std::vector<bool> left(folder.record(pass - 1, files[number]).counts.behind.documents, true);
        for (const size_t step : before) {
          const int64_t there = all[step].number_of[number];
          if (there < 0) continue;
          const CorpusStep& earlier = settings.steps[step];
          const auto decisions = earlier.by_group()->decide(all[step].place, static_cast<uint32_t>(there));
          for (size_t i = 0; i < left.size(); ++i)
            if (decisions->goes()) left[i] = false;
        }
        return left;
      };
    }
  }
  return groups;
}

void settle_groups(const CorpusSettings& settings, const Pass& pass, const CorpusFolder& folder,
                   const std::vector<GroupFiles>& groups, const TaskShare& share, const Await& await) {
  for (const size_t number : pass.decided) {
    const CorpusStep& step = settings.steps[number];
    const GroupPlace& place = groups[number].place;
    if (fs::exists(folder.mark(step, kSettled))) continue;
    const uint32_t parts = step.by_group()->num_parts(place);
    reduce_parts(step, folder, place, parts, share);
    await(fmt::format("parts of '{}'", step.name), parts, [&] {
      size_t done = 0;
      for (uint32_t part = 0; part < parts; ++part) done += fs::exists(folder.mark(step, part_mark(part, parts)));
      return done;
    });
    settle(step, folder, place, await);
  }
}

}  // namespace coppice
