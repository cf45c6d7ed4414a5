#include "src/corpus/report/corpus_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "src/base/files.h"
#include "src/base/html_page.h"
#include "src/base/log.h"
#include "src/corpus/report/cluster_summary.h"
#include "src/corpus/report/corpus_text.h"
#include "src/corpus/report/document_survey.h"
#include "src/corpus/report/flow_picture.h"
#include "src/corpus/report/html_table.h"
#include "src/corpus/report/kept_documents.h"
#include "src/corpus/report/rule_sections.h"
#include "src/corpus/report/samples.h"
#include "src/corpus/report/text_table.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostFiles = 64, kMostDomains = 50, kMostNames = 30, kClusterCharacters = 200;
constexpr const char* kFlowTitle = "Text from what came in to what is left, and what each step takes out";

std::string count_text(uint64_t count) { return fmt::format("{}", count); }
std::string size_text(const Amount& amount) { return format_bytes(static_cast<double>(amount.text_bytes)); }

std::string sources_html(const CompleteCorpus& corpus) {
  HtmlRows rows;
  for (const ToldSource& of : corpus.sources)
    rows.push_back({of.options.name, of.options.license, count_text(of.files), count_text(of.records),
                    count_text(of.in.documents), count_text(of.out.documents),
                    percent_text(of.in.documents - of.out.documents, of.in.documents), size_text(of.in),
                    size_text(of.out), reasons_text(of.passed), reasons_text(of.bad)});
  return html_table(
      {"source", "licence", "files", "records", "documents", "left", "lost", "text", "left", "passed over", "bad"},
      rows, 2);
}

std::string steps_html(const CompleteCorpus& corpus) {
  HtmlRows rows;
  for (const ToldStep& of : corpus.steps)
    rows.push_back({of.name, of.kind, count_text(of.seen.documents), count_text(of.kept.documents),
                    percent_text(of.seen.documents - of.kept.documents, of.seen.documents), count_text(of.changed),
                    size_text(of.seen), size_text(of.kept), count_text(of.measured)});
  return html_table({"step", "kind", "documents", "left", "lost", "changed", "text", "left", "measured"}, rows, 2);
}

std::string drops_html(const CompleteCorpus& corpus) {
  HtmlRows rows;
  for (const ToldStep& step : corpus.steps)
    for (const ToldRule& of : step.rules) {
      std::string shares;
      for (const ToldSource& source : corpus.sources)
        if (const auto first = of.first_by_source.find(source.options.name); first != of.first_by_source.end())
          shares += fmt::format("{}{} {}", shares.empty() ? "" : ", ", source.options.name,
                                percent_text(first->second.documents, source.in.documents));
      const bool idle = of.counts.first.documents == 0 && of.counts.would.documents == 0;
      rows.push_back({step.name, of.rule.name, limits_text(of.rule), idle ? "removed nothing" : shares,
                      count_text(of.counts.first.documents), size_text(of.counts.first),
                      count_text(of.counts.alone.documents), size_text(of.counts.alone),
                      count_text(of.counts.would.documents), size_text(of.counts.would)});
    }
  return html_table(
      {"step", "rule", "drops", "share of each source", "first", "text", "by it alone", "text", "would have", "text"},
      rows, 4,
      "First: the rule was the first that did not let the document pass. By it alone: no other rule that "
      "looked at the document would have removed it. Would have: if it had come first. The last two "
      "count documents that every rule has measured; what goes in one pass is not seen by the passes "
      "behind it.");
}

/// How a document of each cluster begins; of each file that holds one all are read together.
std::vector<std::string> beginnings_of(const CompleteCorpus& corpus, const std::vector<LargeCluster>& clusters) {
  std::map<std::string, std::set<uint64_t>> wanted;
  for (const LargeCluster& cluster : clusters)
    if (!cluster.file.empty()) wanted[cluster.file].insert(document_hash(cluster.id));
  std::map<std::string, std::map<uint64_t, Sample>> found;
  for (const SourceFile& file : corpus.files)
    if (const auto ids = wanted.find(file.name); ids != wanted.end())
      found[file.name] = find_documents(corpus, file, ids->second, {.characters = kClusterCharacters});
  std::vector<std::string> beginnings;
  for (const LargeCluster& cluster : clusters) {
    std::map<uint64_t, Sample>& of_file = found[cluster.file];
    const auto sample = of_file.find(document_hash(cluster.id));
    beginnings.push_back(sample == of_file.end() ? "" : sample->second.text.value_or(""));
  }
  return beginnings;
}

std::string clusters_html(const CompleteCorpus& corpus, const ToldStep& step) {
  const fs::path file = corpus.left_by(step, "clusters.jsonl.zst");
  if (!fs::exists(file)) return "";
  std::vector<std::string> names;
  for (const ToldSource& source : corpus.sources) names.push_back(source.options.name);
  const ClusterSummary of = summarize_clusters(file, names);
  std::string html = fmt::format("<h3>{}</h3>\n<p class=\"note\">{} documents in {} clusters of copies.</p>\n",
                                 escape_xml(step.name), of.members, of.clusters);
  if (of.clusters == 0) return html;
  HtmlRows rows;
  for (const auto& [size, count] : of.sizes)
    rows.push_back({size <= 2 ? count_text(size) : fmt::format("{} to {}", size / 2 + 1, size), count_text(count)});
  std::string columns = "<div>\n" + html_table({"documents of a cluster", "clusters"}, rows, 1) + "</div>\n";
  rows.clear();
  for (size_t i = of.similarities.size(); i-- > 0;)
    if (of.similarities[i] > 0)
      rows.push_back({fmt::format("{:.2f} to {:.2f}", 0.05 * static_cast<double>(i), 0.05 * static_cast<double>(i + 1)),
                      count_text(of.similarities[i])});
  columns += "<div>\n" + html_table({"similarity to the one that stays", "documents"}, rows, 1) + "</div>\n";
  html += "<div class=\"columns\">\n" + columns + "</div>\n<h3>Largest clusters</h3>\n";
  rows.clear();
  const std::vector<std::string> beginnings = beginnings_of(corpus, of.largest);
  for (size_t i = 0; i < of.largest.size(); ++i)
    rows.push_back({of.largest[i].id, of.largest[i].source, beginnings[i], count_text(of.largest[i].members)});
  html += html_table({"document", "source", "begins", "documents"}, rows, 3) + "<h3>Copies between sources</h3>\n";
  names.push_back("(older run)");
  std::vector<size_t> used;
  for (size_t i = 0; i < names.size(); ++i) {
    bool any = i + 1 < names.size();
    for (size_t k = 0; k < names.size(); ++k) any |= of.copies[i][k] + of.copies[k][i] > 0;
    if (any) used.push_back(i);
  }
  std::vector<std::string> header = {"copies in, of what stays in"};
  for (const size_t i : used) header.push_back(names[i]);
  rows.clear();
  for (const size_t i : used) {
    std::vector<std::string>& row = rows.emplace_back(std::vector<std::string>{names[i]});
    for (const size_t k : used) row.push_back(of.copies[i][k] > 0 ? count_text(of.copies[i][k]) : "");
  }
  return html + html_table(header, rows, 1);
}

std::string contamination_html(const CompleteCorpus& corpus, const ToldStep& step) {
  const fs::path file = corpus.left_by(step, "contamination.json");
  if (!fs::exists(file)) return "";
  const std::string where = file.string();
  const Json json = read_json(file);
  const uint64_t documents = unsigned_at(json, "documents", where);
  std::string html = fmt::format("<h3>{}</h3>\n<p class=\"note\">{} of {} documents hold items.</p>\n",
                                 escape_xml(step.name), unsigned_at(json, "documents_hit", where), documents);
  HtmlRows rows, windows;
  for (const Json& of : array_at(json, "benchmarks", where)) {
    const std::string name = string_at(of, "name", where);
    std::string holders;
    for (const auto& [source, count] : object_at(of, "documents", where).items())
      holders += fmt::format("{}{} {}", holders.empty() ? "" : ", ", source, count.dump());
    const auto number = [&](const char* key) { return count_text(unsigned_at(of, key, where)); };
    rows.push_back({name, of.value("report_only", false) ? "reported only" : "", holders, number("items"),
                    number("not_covered"), number("hit"), number("items_all_exempt"), number("ngrams"),
                    number("ngrams_found"), number("ngrams_exempt")});
    for (const Json& window : array_at(of, "windows", where))
      windows.push_back({name, string_at(window, "ngram", where), count_text(unsigned_at(window, "item", where)),
                         count_text(unsigned_at(window, "count", where))});
  }
  html += html_table({"benchmark", "", "documents that hold items", "items", "not covered", "held", "all exempt",
                      "n-grams", "found", "exempt"},
                     rows, 3);
  return windows.empty() ? html
                         : html + "<h3>Most frequent n-grams that are not exempt</h3>\n" +
                               html_table({"benchmark", "n-gram", "item", "times"}, windows, 2,
                                          "Ten of each benchmark: false hits are among them.");
}

HtmlRows count_rows(std::vector<std::pair<std::string, uint64_t>> counts, uint64_t whole, size_t most) {
  std::ranges::stable_sort(counts, std::ranges::greater(), &std::pair<std::string, uint64_t>::second);
  HtmlRows rows;
  uint64_t others = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (i >= most) {
      others += counts[i].second;
      continue;
    }
    rows.push_back({counts[i].first.empty() ? "(none)" : counts[i].first, count_text(counts[i].second),
                    percent_text(counts[i].second, whole)});
  }
  if (others > 0)
    rows.push_back({fmt::format("{} others", counts.size() - most), count_text(others), percent_text(others, whole)});
  return rows;
}

std::string personal_html(const CompleteCorpus& corpus) {
  const HtmlRows rows = personal_rows(corpus);
  return rows.empty() ? ""
                      : html_table(kPersonalHeader, rows, 2,
                                   "What was masked, and what stood in documents that went for holding too much of it. "
                                   "coppice data sample shows documents with their spans masked.");
}

std::string documents_html(const CompleteCorpus& corpus, const std::vector<SourceFile>& files) {
  const DocumentSurvey of = survey_documents(corpus, files);
  const uint64_t whole = of.documents.documents;
  if (whole == 0) return "";
  HtmlRows lengths;
  for (size_t i = 0; i < of.lengths.size(); ++i)
    if (of.lengths[i] > 0)
      lengths.push_back({i == 0 ? "0" : fmt::format("{} to {}", uint64_t{1} << (i - 1), (uint64_t{1} << i) - 1),
                         count_text(of.lengths[i]), percent_text(of.lengths[i], whole)});
  const auto column = [](const char* title, const HtmlRows& rows) {
    return rows.empty() ? ""
                        : fmt::format("<div>\n<h3>{0}</h3>\n{1}</div>\n", title,
                                      html_table({"", "documents", "share"}, rows, 1));
  };
  const auto pairs = [](const auto& map) {
    return std::vector<std::pair<std::string, uint64_t>>(map.begin(), map.end());
  };
  return "<div class=\"columns\">\n" + column("Characters", lengths) +
         column("Languages", count_rows(pairs(of.languages), whole, kMostNames)) +
         column("Licences", count_rows(pairs(of.licences), whole, kMostNames)) +
         column("Domains", count_rows(of.domains, whole, kMostDomains)) + "</div>\n";
}

std::string of_each(const CompleteCorpus& corpus,
                    std::string (*section)(const CompleteCorpus& corpus, const ToldStep& step)) {
  std::string html;
  for (const ToldStep& step : corpus.steps) html += section(corpus, step);
  return html;
}

}  // namespace

std::string corpus_page(const CompleteCorpus& corpus) {
  std::vector<std::string> verdict = {fmt::format(
      "{} documents with {} of text are left of {} with {}.", format_count(static_cast<double>(corpus.out.documents)),
      size_text(corpus.out), format_count(static_cast<double>(corpus.in.documents)), size_text(corpus.in))};
  for (const std::string& alarm : corpus.alarms) verdict.push_back("Alarm: " + alarm + ".");
  for (const std::string& warning : corpus.warnings) verdict.push_back("Warning: " + warning + ".");
  const std::vector<SourceFile> files = sampled_files(corpus, kMostFiles);
  const std::string partly =
      files.size() == corpus.files.size()
          ? ""
          : fmt::format("<p class=\"note\">From {} of {} files.</p>\n", files.size(), corpus.files.size());
  std::string names;
  for (const ToldSource& source : corpus.sources) names += (names.empty() ? "" : ", ") + source.options.name;

  std::string html = figure_html(flow_picture(corpus), kFlowTitle,
                                 "The band is as wide as the text; a branch is what a step takes out, in documents "
                                 "that go and in cuts of those that stay.");
  html += section_html("Sources", sources_html(corpus));
  html += section_html("Steps", steps_html(corpus));
  html += section_html("What went", drops_html(corpus));
  const auto with_note = [&](const std::string& body) { return body.empty() ? body : partly + body; };
  html += section_html("Rules and their thresholds", with_note(rules_html(corpus, files)));
  html += section_html("Copies", of_each(corpus, clusters_html));
  html += section_html("Benchmarks", of_each(corpus, contamination_html));
  html += section_html("Personal data", personal_html(corpus));
  html += section_html("Documents that are left", with_note(documents_html(corpus, files)));
  return page_html("coppice corpus", names, verdict, html);
}

void write_corpus_page(const CompleteCorpus& corpus) {
  write_file_atomically(corpus.root / "report.svg", flow_picture(corpus).document(kFlowTitle));
  write_file_atomically(corpus.root / "report.html", corpus_page(corpus));
}

}  // namespace coppice
