#include "src/corpus/run/corpus_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/corpus/report/complete_corpus.h"
#include "src/corpus/report/corpus_page.h"
#include "src/corpus/run/corpus_totals.h"
#include "src/corpus/run/input_files.h"
#include "src/text/byte_sink.h"
#include "src/text/byte_source.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr int kVersion = 1;
constexpr const char* kSourcesFormat = "coppice.corpus_sources";

Json limit_of(double limit) { return std::isfinite(limit) ? Json(limit) : Json(); }

/// A row of the drop table.
Json rule_json(const CorpusSettings& settings, const CorpusTotals& totals, const CorpusStep& step, const Rule& rule) {
  const RuleCounts& counts = totals.steps.at(step.name).rules.at(rule.name);
  Json sources = Json::object();
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const auto of = totals.by_source[i].find(step.name);
    if (of == totals.by_source[i].end() || !of->second.rules.contains(rule.name)) continue;
    if (const Amount& first = of->second.rules.at(rule.name).first; first.documents > 0)
      sources[settings.sources[i].name] = to_json(first);
  }
  return {{"rule", rule.name},
          {"least", limit_of(rule.least)},
          {"most", limit_of(rule.most)},
          {"first", to_json(counts.first)},
          {"alone", to_json(counts.alone)},
          {"would", to_json(counts.would)},
          {"first_by_source", std::move(sources)}};
}

Json step_json(const CorpusSettings& settings, const CorpusTotals& totals, const CorpusStep& step) {
  const StepCounts& counts = totals.steps.at(step.name);
  Json rules = Json::array();
  for (const Rule& rule : told_rules(step, counts)) rules.push_back(rule_json(settings, totals, step, rule));
  Json sources = Json::object();
  for (size_t i = 0; i < settings.sources.size(); ++i)
    if (const auto of = totals.by_source[i].find(step.name);
        of != totals.by_source[i].end() && step.looks_at(settings.sources[i]))
      sources[settings.sources[i].name] = {{"seen", to_json(of->second.seen)}, {"kept", to_json(of->second.kept)}};
  return {{"step", step.name},
          {"kind", step.kind},
          {"fingerprint", step.fingerprint},
          {"seen", to_json(counts.seen)},
          {"kept", to_json(counts.kept)},
          {"changed", counts.changed},
          {"measured", counts.measured},
          {"counts", counts.counted},
          {"rules", std::move(rules)},
          {"by_source", std::move(sources)}};
}

Json sources_json(const CorpusSettings& settings, const std::vector<SourceFile>& files, const CorpusTotals& totals) {
  Json sources = Json::array();
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const SourceOptions& source = settings.sources[i];
    Json list = Json::array();
    for (size_t f = 0; f < files.size(); ++f) {
      if (files[f].source != i) continue;
      const FileTotals& of = totals.files[f];
      list.push_back({{"name", files[f].name},
                      {"kind", files[f].kind},
                      {"output", files[f].output},
                      {"bytes", of.input.bytes},
                      {"sha256", of.input.sha256},
                      {"in", to_json(of.before)},
                      {"out", to_json(of.behind)},
                      {"read", to_json(of.source)}});
    }
    sources.push_back({{"name", source.name},
                       {"license", source.license},
                       {"public", source.is_public},
                       {"homepage", source.homepage},
                       {"date", source.date},
                       {"pii", source.pii},
                       {"priority", source.priority},
                       {"stages", source.stages},
                       {"in", to_json(totals.sources[i].before)},
                       {"out", to_json(totals.sources[i].behind)},
                       {"files", std::move(list)}});
  }
  return {{"format", kSourcesFormat}, {"version", kVersion}, {"sources", std::move(sources)}};
}

/// What group steps write for people rather than for decide(): clusters of copies, what was found of benchmarks.
constexpr const char* kForPeople[] = {"clusters.jsonl.zst", "contamination.json", "overlap.jsonl.zst"};

void keep_for_people(const std::vector<CorpusStep>& steps, const CorpusFolder& folder) {
  for (const CorpusStep& step : steps)
    for (const char* name : kForPeople) {
      const fs::path from = folder.group(step) / name, to = folder.root() / "stats" / "groups" / step.name / name;
      if (!fs::exists(from)) continue;
      make_folder(to.parent_path());
      remove_temporaries(to.parent_path());
      ByteSource source(from, ByteSource::Coding::plain);
      ByteSink sink(to, ByteSink::Coding::plain);
      for (std::string_view block = source.next(); !block.empty(); block = source.next()) sink.write(block);
      sink.commit();
    }
}

std::string text_size(const Amount& amount) { return format_bytes(static_cast<double>(amount.text_bytes)); }

/// One line of a Markdown table: no bar and no line break of a name opens a cell of its own.
std::string row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) {
    line += " ";
    for (const char c : printable(cell)) line += c == '|' ? std::string("\\|") : std::string(1, c);
    line += " |";
  }
  return line + "\n";
}

std::string head(const std::vector<std::string>& cells) {
  std::string rule = "|";
  for (size_t i = 0; i < cells.size(); ++i) rule += " --- |";
  return row(cells) + rule + "\n";
}

std::string sources_text(const CorpusSettings& settings, const CorpusTotals& totals) {
  std::string text = "# Sources\n\n";
  text += head(
      {"source", "licence", "public", "homepage", "date", "stages", "files", "documents in", "out", "text in", "out"});
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const SourceOptions& source = settings.sources[i];
    const SourceTotals& of = totals.sources[i];
    text += row({source.name, source.license, source.is_public ? "yes" : "no", source.homepage, source.date,
                 source.stages.empty() ? "all" : fmt::format("{}", fmt::join(source.stages, ", ")),
                 fmt::format("{}", of.files), fmt::format("{}", of.before.documents),
                 fmt::format("{}", of.behind.documents), text_size(of.before), text_size(of.behind)});
  }
  return text + "\nThe files with their SHA-256 are in sources.json.\n";
}

std::string drop_rows(const CorpusSettings& settings, const CorpusTotals& totals, const CorpusStep& step) {
  const StepCounts& counts = totals.steps.at(step.name);
  std::string rows;
  for (const Rule& rule : told_rules(step, counts)) {
    const RuleCounts& of = counts.rules.at(rule.name);
    std::string shares;
    for (size_t i = 0; i < settings.sources.size(); ++i) {
      const auto found = totals.by_source[i].find(step.name);
      if (found == totals.by_source[i].end() || !found->second.rules.contains(rule.name)) continue;
      const uint64_t first = found->second.rules.at(rule.name).first.documents;
      const uint64_t came = totals.sources[i].before.documents;
      if (first > 0)
        shares += fmt::format("{}{} {:.2f}%", shares.empty() ? "" : ", ", settings.sources[i].name,
                              100 * static_cast<double>(first) / static_cast<double>(came));
    }
    const bool idle = of.first.documents == 0 && of.would.documents == 0;
    rows += row({step.name, rule.name, limits_text(rule), fmt::format("{}", of.first.documents), text_size(of.first),
                 fmt::format("{}", of.alone.documents), text_size(of.alone), fmt::format("{}", of.would.documents),
                 text_size(of.would), idle ? "removed nothing" : shares});
  }
  return rows;
}

std::string report_text(const CorpusSettings& settings, const CorpusTotals& totals) {
  std::string text =
      fmt::format("# Corpus\n\n{} documents, {} of text; {} documents, {} came in.\n", totals.behind.documents,
                  text_size(totals.behind), totals.before.documents, text_size(totals.before));
  if (!totals.alarms.empty()) text += "\n";
  for (const std::string& alarm : totals.alarms) text += "**Alarm: " + alarm + "**\n";
  if (!totals.warnings.empty()) text += "\n";
  for (const std::string& warning : totals.warnings) text += "- warning: " + warning + "\n";

  text += "\n## Sources\n\n" +
          head({"source", "files", "records", "documents in", "out", "lost", "text in", "out", "passed over", "bad"});
  const auto reasons = [](const std::map<std::string, uint64_t>& counts) {
    std::string list;
    for (const auto& [reason, count] : counts) list += fmt::format("{}{} {}", list.empty() ? "" : ", ", count, reason);
    return list;
  };
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const SourceTotals& of = totals.sources[i];
    text += row({settings.sources[i].name, fmt::format("{}", of.files), fmt::format("{}", of.records),
                 fmt::format("{}", of.before.documents), fmt::format("{}", of.behind.documents),
                 fmt::format("{:.1f}%", 100 * of.lost()), text_size(of.before), text_size(of.behind),
                 reasons(of.passed), reasons(of.bad)});
  }
  text += "\n## Steps\n\n" + head({"step", "kind", "documents in", "out", "changed", "text in", "out", "measured"});
  for (const CorpusStep& step : settings.steps) {
    const StepCounts& of = totals.steps.at(step.name);
    text +=
        row({step.name, step.kind, fmt::format("{}", of.seen.documents), fmt::format("{}", of.kept.documents),
             fmt::format("{}", of.changed), text_size(of.seen), text_size(of.kept), fmt::format("{}", of.measured)});
  }
  text += "\n## What went\n\n" + head({"step", "rule", "drops", "removed first", "text", "by it alone", "text",
                                       "would have removed", "text", "share of each source"});
  for (const CorpusStep& step : settings.steps) text += drop_rows(settings, totals, step);
  return text +
         "\nRemoved first: the rule was the first that did not let the document pass. By it alone: no other rule that "
         "looked at the document would have removed it. Would have removed: if it had come first. The last two count "
         "documents that every rule has measured (column measured of the steps); what goes in one pass is not seen by "
         "the passes behind it.\n";
}

}  // namespace

void write_corpus_report(const CorpusSettings& settings, const std::vector<SourceFile>& files,
                         const std::vector<Pass>& passes, const CorpusFolder& folder) {
  const CorpusTotals totals = sum_corpus(settings, files, passes, folder);
  for (const CorpusStep& step : settings.steps) step.step->finish(totals.steps.at(step.name).counted);
  Json steps = Json::array();
  make_folder(folder.root() / "stats");
  for (const CorpusStep& step : settings.steps) {
    Json json = step_json(settings, totals, step);
    steps.push_back(json);
    json["format"] = "coppice.corpus_step";
    json["version"] = kVersion;
    write_file_atomically(folder.root() / "stats" / (step.name + ".json"), seal(json));
  }
  write_file_atomically(folder.root() / "sources.json", seal(sources_json(settings, files, totals)));
  write_file_atomically(folder.root() / "SOURCES.md", sources_text(settings, totals));
  write_file_atomically(folder.root() / "report.md", report_text(settings, totals));
  Json paths = Json::object();
  for (const SourceFile& file : files) paths[file.name] = fs::absolute(file.path).lexically_normal().string();
  write_file_atomically(folder.root() / kInputsName,
                        seal({{"format", kInputsFormat}, {"version", kVersion}, {"paths", std::move(paths)}}));
  keep_for_people(settings.steps, folder);
  (void)COPPICE_FAILPOINT("corpus.before_report");

  Json sources = Json::array();
  for (size_t i = 0; i < settings.sources.size(); ++i) {
    const SourceTotals& of = totals.sources[i];
    sources.push_back({{"source", settings.sources[i].name},
                       {"files", of.files},
                       {"records", of.records},
                       {"in", to_json(of.before)},
                       {"out", to_json(of.behind)},
                       {"passed", of.passed},
                       {"bad", of.bad}});
  }
  const Json report = {{"format", "coppice.corpus"},    {"version", kVersion},          {"made_of", folder.identity()},
                       {"passes", passes.size()},       {"in", to_json(totals.before)}, {"out", to_json(totals.behind)},
                       {"sources", std::move(sources)}, {"steps", std::move(steps)},    {"alarms", totals.alarms},
                       {"warnings", totals.warnings}};
  write_corpus_page(complete_corpus(folder.root(), report));
  write_file_atomically(folder.report(), seal(report));
  for (const std::string& alarm : totals.alarms) log_warning(folder.root().string() + ": alarm: " + alarm);
  for (const std::string& warning : totals.warnings) log_warning(folder.root().string() + ": " + warning);
}

Amount corpus_documents(const CorpusFolder& folder) {
  const std::string where = folder.report().string();
  const Json report = read_sealed(folder.report(), "coppice.corpus", kVersion);
  const Json& out = object_at(report, "out", where);
  return {unsigned_at(out, "documents", where), unsigned_at(out, "text_bytes", where)};
}

void check_report_inputs(const CorpusFolder& folder, const std::vector<SourceFile>& files) {
  const fs::path path = folder.root() / "sources.json";
  const std::string where = path.string();
  std::map<std::string, InputIdentity> made_of;
  const Json json = read_sealed(path, kSourcesFormat, kVersion);
  for (const Json& source : array_at(json, "sources", where))
    for (const Json& file : array_at(source, "files", where))
      made_of[string_at(file, "name", where)] = {unsigned_at(file, "bytes", where), string_at(file, "sha256", where)};
  for (const SourceFile& file : files)
    if (const auto found = made_of.find(file.name); found != made_of.end() && !is_gone(file))
      folder.check_input(file, found->second, path);
}

}  // namespace coppice
