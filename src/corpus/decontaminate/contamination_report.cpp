#include "src/corpus/decontaminate/contamination_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/text/byte_sink.h"
#include "src/text/byte_source.h"

namespace coppice {
namespace {

constexpr size_t kWindows = 10;

const NgramCount* count_of(const std::vector<NgramCount>& counts, uint32_t ngram) {
  const auto found = std::ranges::lower_bound(counts, ngram, {}, &NgramCount::ngram);
  return found != counts.end() && found->ngram == ngram ? &*found : nullptr;
}

struct Coverage {
  size_t ngrams = 0, found = 0, exempt = 0;
};

Coverage coverage_of(uint32_t item, const NgramIndex& index, const std::vector<bool>& stands, const Verdict& verdict) {
  Coverage coverage;
  for (const uint32_t ngram : index.ngrams_of(item)) {
    ++coverage.ngrams;
    coverage.found += stands[ngram];
    coverage.exempt += stands[ngram] && verdict.is_exempt(ngram);
  }
  return coverage;
}

}  // namespace

ContaminationReport::ContaminationReport(const NgramIndex& index, const std::vector<NgramCount>& counts,
                                         const Verdict& verdict)
    : index_(index), counts_(counts), verdict_(verdict), rows_(index.benchmarks().size()) {}

void ContaminationReport::add(const std::string& source, const std::vector<HeldItem>& held) {
  std::set<uint32_t> benchmarks;
  bool goes = false;
  for (const HeldItem& item : held) {
    const uint32_t benchmark = index_.items()[item.item].benchmark;
    rows_[benchmark].items.insert(item.item);
    if (benchmarks.insert(benchmark).second) ++rows_[benchmark].documents[source];
    goes |= !verdict_.is_report_only(item.item);
  }
  documents_hit_ += goes;
}

Json ContaminationReport::json(const CorpusSize& size) const {
  Json benchmarks = Json::array();
  uint32_t item = 0;
  for (uint32_t benchmark = 0; benchmark < rows_.size(); ++benchmark) {
    uint64_t items = 0, not_covered = 0, all_exempt = 0;
    std::set<uint32_t> ngrams;
    const uint32_t first = item;
    for (; item < index_.items().size() && index_.items()[item].benchmark == benchmark; ++item, ++items) {
      const std::span<const uint32_t> own = index_.ngrams_of(item);
      ngrams.insert(own.begin(), own.end());
      not_covered += own.empty();
      all_exempt += !own.empty() && std::ranges::all_of(own, [&](uint32_t ngram) { return verdict_.is_exempt(ngram); });
    }
    uint64_t found = 0, exempt = 0;
    std::vector<NgramCount> windows;
    for (const uint32_t ngram : ngrams) {
      const NgramCount* count = count_of(counts_, ngram);
      found += count != nullptr;
      exempt += verdict_.is_exempt(ngram);
      if (count != nullptr && !verdict_.is_exempt(ngram)) windows.push_back(*count);
    }
    std::ranges::stable_sort(windows, std::ranges::greater(), &NgramCount::count);
    windows.resize(std::min(windows.size(), kWindows));
    Json shown = Json::array();
    for (const NgramCount& window : windows) {
      const auto ngram = static_cast<uint32_t>(window.ngram);
      const std::span<const uint32_t> holders = index_.items_of(ngram);
      const uint32_t holder = *std::ranges::lower_bound(holders, first);
      shown.push_back(
          {{"item", index_.items()[holder].number}, {"ngram", index_.text(ngram)}, {"count", window.count}});
    }
    benchmarks.push_back({{"name", index_.benchmarks()[benchmark]},
                          {"items", items},
                          {"not_covered", not_covered},
                          {"hit", rows_[benchmark].items.size()},
                          {"documents", rows_[benchmark].documents},
                          {"report_only", items > 0 && verdict_.is_report_only(first)},
                          {"ngrams", ngrams.size()},
                          {"ngrams_found", found},
                          {"ngrams_exempt", exempt},
                          {"items_all_exempt", all_exempt},
                          {"windows", std::move(shown)}});
  }
  return {{"documents", size.documents},
          {"words", size.words},
          {"documents_hit", documents_hit_},
          {"benchmarks", std::move(benchmarks)}};
}

void write_overlap(const std::filesystem::path& file, const NgramIndex& index, const std::vector<bool>& stands,
                   const Verdict& verdict) {
  ByteSink sink(file, ByteSink::Coding::zstd);
  for (uint32_t item = 0; item < index.items().size(); ++item) {
    const Coverage coverage = coverage_of(item, index, stands, verdict);
    sink.write(fmt::format(
        "{{\"benchmark\":{},\"item\":{},\"ngrams\":{},\"found\":{},\"exempt\":{}}}\n",
        Json(index.benchmarks()[index.items()[item].benchmark]).dump(-1, ' ', false, Json::error_handler_t::replace),
        index.items()[item].number, coverage.ngrams, coverage.found, coverage.exempt));
  }
  sink.commit();
}

std::string overlap_table(const std::filesystem::path& file) {
  struct Row {
    uint64_t items = 0, not_covered = 0;
    std::array<uint64_t, 4> by_coverage{};  // 0; below a half; below 1; 1
  };
  std::vector<std::pair<std::string, Row>> rows;
  LineReader lines(file, ByteSource::Coding::zstd, uint64_t{1} << 20);
  for (std::string_view line; lines.next(line);) {
    const std::string where = fmt::format("{}:{}", file.native(), lines.line_number());
    const Json item = parse_json(line, where);
    const std::string name = string_at(item, "benchmark", where);
    const uint64_t ngrams = unsigned_at(item, "ngrams", where), found = unsigned_at(item, "found", where);
    if (rows.empty() || rows.back().first != name) rows.emplace_back(name, Row());
    Row& row = rows.back().second;
    ++row.items;
    if (ngrams == 0) {
      ++row.not_covered;
    } else {
      ++row.by_coverage[found == 0 ? 0 : found >= ngrams ? 3 : 2 * found < ngrams ? 1 : 2];
    }
  }
  size_t width = 9;
  for (const auto& [name, row] : rows) width = std::max(width, name.size());
  std::string table = fmt::format("{:<{}}  {:>8}  {:>11}  {:>8}  {:>8}  {:>8}  {:>8}\n", "benchmark", width, "items",
                                  "not covered", "clean", "< 50%", ">= 50%", "whole");
  for (const auto& [name, row] : rows)
    table += fmt::format("{:<{}}  {:>8}  {:>11}  {:>8}  {:>8}  {:>8}  {:>8}\n", name, width, row.items, row.not_covered,
                         row.by_coverage[0], row.by_coverage[1], row.by_coverage[2], row.by_coverage[3]);
  return table;
}

}  // namespace coppice
