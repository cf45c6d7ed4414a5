#include "src/corpus/report/rule_sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "src/base/html_page.h"
#include "src/corpus/report/html_table.h"
#include "src/corpus/report/kept_documents.h"
#include "src/corpus/report/samples.h"
#include "src/corpus/report/text_table.h"
#include "src/corpus/report/tune.h"
#include "src/corpus/report/value_file.h"
#include "src/corpus/report/value_histogram.h"

namespace coppice {
namespace {

constexpr size_t kSampleFiles = 16, kSampleRows = 500, kSamples = 5;  // rows of a file
constexpr uint64_t kMostValues = 2'000'000;  // of all histograms: of more, those of every second document, or third

struct Near {
  double distance;
  uint64_t id;
  float value;
  uint32_t file;
  auto operator<=>(const Near&) const = default;
};

/// The documents nearest to a threshold, on either side of it.
struct NearBoth {
  std::set<Near> stays, goes;
  void add(const Rule& rule, float value, uint64_t id, uint32_t file) {
    if (std::isnan(value)) return;
    const double distance = std::min(std::abs(value - rule.least), std::abs(value - rule.most));
    std::set<Near>& side = drops_stored(rule, value) ? goes : stays;
    if (side.size() == kSamples && std::prev(side.end())->distance < distance) return;
    side.insert({distance, id, value, file});
    if (side.size() > kSamples) side.erase(std::prev(side.end()));
  }
};

using Found = std::map<std::pair<uint32_t, uint64_t>, Sample>;  // by file and id

struct RulePage {
  const ToldStep* step;
  const ToldRule* rule;
  std::vector<ThresholdRow> thresholds;
  std::vector<float> values;  // of every so many documents
  NearBoth near;              // of the sampled files' first rows
};

struct RulePages {
  std::vector<RulePage> pages;
  uint64_t stride = 1;  // of the documents whose values are kept
};

/// Of values that are read once, file by file.
RulePages make_pages(const CompleteCorpus& corpus, const std::vector<SourceFile>& files) {
  RulePages of;
  for (const ToldStep& step : corpus.steps)
    for (const ToldRule& rule : step.rules)
      if (rule.has_threshold())
        of.pages.push_back({&step, &rule, threshold_rows(step, rule), /*values=*/{}, /*near=*/{}});
  uint64_t values = 0;
  for (const SourceFile& file : files) values += of.pages.size() * ValueFile(corpus, file).documents();
  of.stride = values / kMostValues + 1;

  const std::vector<SourceFile> sampled = sampled_files(corpus, kSampleFiles);
  for (uint32_t file = 0; file < files.size(); ++file) {
    const ValueFile stored(corpus, files[file]);
    std::vector<uint64_t> ids;
    if (std::ranges::find(sampled, files[file].name, &SourceFile::name) != sampled.end()) ids = stored.ids();
    ids.resize(std::min(ids.size(), kSampleRows));
    for (RulePage& page : of.pages) {
      const std::vector<float> column = stored.column(page.step->name, page.rule->rule.name);
      for (ThresholdRow& row : page.thresholds) row.add(column);
      for (size_t i = 0; i < column.size(); i += of.stride) page.values.push_back(column[i]);
      for (size_t i = 0; i < ids.size(); ++i) page.near.add(page.rule->rule, column[i], ids[i], file);
    }
  }
  return of;
}

Found find_texts(const CompleteCorpus& corpus, const std::vector<RulePage>& pages,
                 const std::vector<SourceFile>& files) {
  std::map<uint32_t, std::set<uint64_t>> wanted;
  for (const RulePage& page : pages)
    for (const std::set<Near>* side : {&page.near.stays, &page.near.goes})
      for (const Near& near : *side) wanted[near.file].insert(near.id);
  Found found;
  for (const auto& [file, ids] : wanted)
    for (auto& [id, sample] : find_documents(corpus, files[file], ids, SampleText())) found[{file, id}] = sample;
  return found;
}

std::string samples_html(const char* title, const std::set<Near>& side, const Found& found) {
  HtmlRows rows;
  for (const Near& near : side) {
    const auto of = found.find({near.file, near.id});
    if (of == found.end()) continue;
    rows.push_back({fmt::format("{:.6g}", near.value), of->second.id, of->second.source,
                    of->second.text.value_or("(text not at hand)")});
  }
  if (rows.empty()) return "";
  return fmt::format("<details><summary>{}: the nearest {}</summary>\n<div class=\"wrap\">{}</div></details>\n", title,
                     rows.size(), html_table({"value", "document", "source", "begins"}, rows, 4));
}

std::string thresholds_html(const ThresholdRow& row) {
  std::vector<std::string> header, shares;
  bool said = false;
  const auto add = [&](const OtherThreshold& of, bool now) {
    header.push_back(fmt::format("{}{} {:.4g}", now ? "now " : "", row.side == Side::least ? "<" : ">", of.threshold));
    shares.push_back(percent_text(of.dropped, row.measured));
  };
  for (size_t i = 0; i < row.others.size(); ++i) {
    if (!said && kOtherThresholds[i] > 1) add(row.now, true), said = true;
    add(row.others[i], false);
  }
  return html_table(header, {shares}, 0);
}

}  // namespace

std::string rules_html(const CompleteCorpus& corpus, const std::vector<SourceFile>& files) {
  if (corpus.made_of.value("values", "") == "none") return "";
  const auto [pages, stride] = make_pages(corpus, files);
  const Found found = find_texts(corpus, pages, files);
  std::string html;
  for (const RulePage& page : pages) {
    const Rule& rule = page.rule->rule;
    const ValueHistogram histogram = value_histogram(page.values, rule);
    if (histogram.measured == 0) continue;
    const std::string name = page.step->name + "." + rule.name;
    html += fmt::format("<h3>{}</h3>\n<p class=\"note\">drops {}; measured {} documents{}</p>\n", escape_xml(name),
                        escape_xml(limits_text(rule)), histogram.measured,
                        stride > 1 ? fmt::format(" of one in {}", stride) : "");
    html += figure_html(histogram_chart(histogram, rule), "Values of " + name);
    for (const ThresholdRow& row : page.thresholds) html += thresholds_html(row);
    html += samples_html("what goes", page.near.goes, found) + samples_html("what stays", page.near.stays, found);
  }
  return html.empty() ? html
                      : "<p class=\"note\">Heights of the bars are by the logarithm of their counts; what goes is "
                        "orange. Shares of the documents that the rule has measured, whatever other rules say. "
                        "Documents are shown by their beginnings, with personal data masked.</p>\n" +
                            html;
}

}  // namespace coppice
