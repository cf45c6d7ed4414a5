#include "src/corpus/run/corpus_totals.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "src/base/log.h"
#include "src/corpus/run/lost_markup.h"

namespace coppice {
namespace {

constexpr double kAlarmingLoss = 0.5;

void add_alarms(CorpusTotals& totals, const CorpusSettings& settings) {
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const SourceTotals& source = totals.sources[i];
    if (source.lost() > kAlarmingLoss)
      totals.alarms.push_back(fmt::format("source '{}' lost {:.1f}% of its documents ({} of {})",
                                          settings.sources[i].name, 100 * source.lost(),
                                          source.before.documents - source.behind.documents, source.before.documents));
    uint64_t bad = 0;
    for (const auto& [reason, count] : source.bad) bad += count;
    if (bad > 0)
      totals.warnings.push_back(
          fmt::format("source '{}' has {} bad records of {}", settings.sources[i].name, bad, source.records));
    if (source.before.documents == 0)
      totals.warnings.push_back(fmt::format("source '{}' holds no document", settings.sources[i].name));
  }
  for (const CorpusStep& step : settings.steps)
    if (totals.steps[step.name].seen.documents == 0)
      totals.warnings.push_back(fmt::format("step '{}' saw no document", step.name));
  if (totals.before.documents > 0 && totals.behind.documents == 0) totals.alarms.push_back("no document is left");
}

}  // namespace

double SourceTotals::lost() const {
  return before.documents == 0
             ? 0
             : static_cast<double>(before.documents - behind.documents) / static_cast<double>(before.documents);
}

CorpusTotals sum_corpus(const CorpusSettings& settings, const std::vector<SourceFile>& files,
                        const std::vector<Pass>& passes, const CorpusFolder& folder) {
  CorpusTotals totals;
  totals.sources.resize(settings.sources.size());
  totals.by_source.resize(settings.sources.size());
  for (const SourceFile& file : files) {
    FileTotals& of = totals.files.emplace_back();
    for (size_t pass = 0; pass < passes.size(); ++pass) {
      const FileRecord record = folder.record(pass, file);
      if (pass == 0) {
        of.input = record.input;
        of.source = record.counts.source;
        of.before = record.counts.before;
      }
      of.behind = record.counts.behind;
      for (const auto& [step, counts] : record.counts.steps) {
        totals.steps[step] += counts;
        totals.by_source[file.source][step] += counts;
      }
    }
    SourceTotals& source = totals.sources[file.source];
    ++source.files;
    source.records += of.source.records;
    source.before += of.before;
    source.behind += of.behind;
    for (const auto& [reason, count] : of.source.passed) source.passed[reason] += count;
    for (const auto& [reason, count] : of.source.bad) source.bad[reason] += count;
    totals.before += of.before;
    totals.behind += of.behind;
  }
  add_alarms(totals, settings);
  std::ranges::copy(lost_markup_warnings(settings, files), std::back_inserter(totals.warnings));
  return totals;
}

std::vector<Rule> told_rules(const CorpusStep& step, const StepCounts& counts) {
  std::vector<Rule> rules = step.rules;
  for (const char* name : {kEmptied, kTimeout})
    if (counts.rules.contains(name) && std::ranges::find(rules, name, &Rule::name) == rules.end())
      rules.push_back({.name = name});
  return rules;
}

}  // namespace coppice
