#include "src/corpus/report/corpus_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/corpus/decontaminate/contamination_report.h"
#include "src/corpus/personal/personal_counts.h"
#include "src/corpus/report/text_table.h"

namespace coppice {
namespace {

using Rows = std::vector<std::vector<std::string>>;

std::string count_text(uint64_t count) { return fmt::format("{}", count); }
std::string size_text(const Amount& amount) { return format_bytes(static_cast<double>(amount.text_bytes)); }

}  // namespace

std::string reasons_text(const std::map<std::string, uint64_t>& counts) {
  std::vector<std::pair<std::string, uint64_t>> sorted(counts.begin(), counts.end());
  std::ranges::stable_sort(sorted, std::ranges::greater(), &std::pair<std::string, uint64_t>::second);
  std::string text;
  for (const auto& [reason, count] : sorted)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, printable(reason));
  return text;
}

std::vector<std::vector<std::string>> personal_rows(const CompleteCorpus& corpus) {
  Rows rows;
  for (const ToldStep& step : corpus.steps) {
    const auto words = step.counted.find(kPersonalWords);
    if (step.kind != "pii" || words == step.counted.end() || words->second == 0) continue;
    for (const auto& [name, spans] : step.counted) {
      if (!name.starts_with(kPersonalSpans)) continue;
      const std::string kind = name.substr(std::string_view(kPersonalSpans).size());
      const auto documents = step.counted.find(kPersonalDocuments + kind);
      rows.push_back({step.name, kind, count_text(documents == step.counted.end() ? 0 : documents->second),
                      count_text(spans),
                      fmt::format("{:.1f}", 1e6 * static_cast<double>(spans) / static_cast<double>(words->second))});
    }
  }
  return rows;
}

std::string stats_text(const CompleteCorpus& corpus) {
  std::string text = fmt::format("{} documents, {} of text; {} documents, {} came in\n", corpus.out.documents,
                                 size_text(corpus.out), corpus.in.documents, size_text(corpus.in));
  for (const std::string& alarm : corpus.alarms) text += "alarm: " + printable(alarm) + "\n";
  for (const std::string& warning : corpus.warnings) text += "warning: " + printable(warning) + "\n";
  Rows rows;
  for (const ToldSource& of : corpus.sources)
    rows.push_back({of.options.name, count_text(of.files), count_text(of.records), count_text(of.in.documents),
                    count_text(of.out.documents), percent_text(of.in.documents - of.out.documents, of.in.documents),
                    size_text(of.in), size_text(of.out)});
  text += "\n" + text_table({"source", "files", "records", "documents", "left", "lost", "text", "left"}, rows, 1);
  for (const ToldSource& of : corpus.sources)
    for (const auto& [what, counts] : {std::pair("passed over", &of.passed), {"bad", &of.bad}})
      if (!counts->empty())
        text += fmt::format("{}: {}: {}\n", printable(of.options.name), what, reasons_text(*counts));
  rows.clear();
  for (const ToldStep& of : corpus.steps)
    rows.push_back({of.name, of.kind, count_text(of.seen.documents), count_text(of.kept.documents),
                    percent_text(of.seen.documents - of.kept.documents, of.seen.documents), count_text(of.changed),
                    size_text(of.seen), size_text(of.kept)});
  text += "\n" + text_table({"step", "kind", "documents", "left", "lost", "changed", "text", "left"}, rows, 2);
  if (const Rows personal = personal_rows(corpus); !personal.empty())
    text += "\n" + text_table(kPersonalHeader, personal, 2);
  rows.clear();
  for (const ToldStep& step : corpus.steps)
    for (const ToldRule& of : step.rules) {
      const bool idle = of.counts.first.documents == 0 && of.counts.would.documents == 0;
      rows.push_back({step.name, of.rule.name, limits_text(of.rule), idle ? "removed nothing" : "",
                      count_text(of.counts.first.documents),
                      percent_text(of.counts.first.documents, corpus.in.documents),
                      count_text(of.counts.alone.documents), count_text(of.counts.would.documents)});
    }
  return text + "\n" + text_table({"step", "rule", "drops", "", "first", "", "by it alone", "would have"}, rows, 4);
}

std::string overlap_tables(const CompleteCorpus& corpus) {
  std::string text;
  for (const ToldStep& step : corpus.steps) {
    const std::filesystem::path file = corpus.left_by(step, "overlap.jsonl.zst");
    if (!std::filesystem::exists(file)) continue;
    text += (text.empty() ? "" : "\n") + printable(step.name) + "\n" + overlap_table(file);
  }
  if (text.empty())
    throw UserError::recipe(corpus.root.string(),
                            "no step of the corpus looked for benchmarks; add a [[data.step]] with kind = "
                            "\"decontaminate\"");
  return text;
}

}  // namespace coppice
