#include "src/corpus/decontaminate/verdict.h"

#include <algorithm>
#include <map>

#include "src/base/utf8_byte.h"
#include "src/text/words/normal_form.h"

namespace coppice {
namespace {

constexpr size_t kCutCharacters = 200;  // on both sides

size_t back(std::string_view text, size_t at, size_t characters) {
  for (; characters > 0 && at > 0; --characters) {
    --at;
    while (at > 0 && is_continuation_byte(text[at])) --at;
  }
  return at;
}

size_t forth(std::string_view text, size_t at, size_t characters) {
  for (; characters > 0 && at < text.size(); --characters) {
    ++at;
    while (at < text.size() && is_continuation_byte(text[at])) ++at;
  }
  return at;
}

/// The normal form of a text, piece by piece, so that each word is known to come from bytes of the text.
struct PlacedWords {
  struct Piece {
    size_t begin, end;
  };
  std::string normal;
  std::vector<std::string_view> words;
  std::vector<Piece> pieces;  // of each word

  explicit PlacedWords(std::string_view text) {
    constexpr std::string_view kBlanks = " \t\r\n\v\f";
    std::string form;
    std::vector<std::string_view> some;
    std::vector<std::pair<size_t, size_t>> places;  // of each word in `normal`
    for (size_t begin = text.find_first_not_of(kBlanks); begin != std::string_view::npos;) {
      const size_t end = std::min(text.find_first_of(kBlanks, begin), text.size());
      normal_form(text.substr(begin, end - begin), form);
      split_normal_form(form, some);
      for (const std::string_view word : some) {
        if (!normal.empty()) normal += ' ';
        places.emplace_back(normal.size(), word.size());
        pieces.push_back({begin, end});
        normal += word;
      }
      begin = text.find_first_not_of(kBlanks, end);
    }
    for (const auto& [begin, size] : places) words.emplace_back(normal.data() + begin, size);
  }
};

}  // namespace

Verdict::Verdict(const NgramIndex& index, const std::vector<NgramCount>& exempt, double min_coverage,
                 const std::vector<std::string>& report_only)
    : index_(index), min_coverage_(min_coverage) {
  for (const NgramCount& count : exempt) exempt_.insert(static_cast<uint32_t>(count.ngram));
  for (uint32_t benchmark = 0; benchmark < index.benchmarks().size(); ++benchmark)
    if (std::ranges::find(report_only, index.benchmarks()[benchmark]) != report_only.end())
      report_only_.insert(benchmark);
}

std::vector<HeldItem> Verdict::held(std::span<const DocumentHit> hits) const {
  struct Found {
    uint32_t ngrams = 0;
    std::optional<uint32_t> first = {};  // that is not exempt
  };
  std::map<uint32_t, Found> found;  // by item
  for (const DocumentHit& hit : hits) {
    const bool exempt = is_exempt(hit.ngram);
    if (exempt && min_coverage_ <= 0) continue;
    for (const uint32_t item : index_.items_of(hit.ngram)) {
      Found& here = found[item];
      ++here.ngrams;
      if (!exempt && !here.first) here.first = hit.ngram;
    }
  }
  std::vector<HeldItem> held;
  for (const auto& [item, here] : found)
    if (here.first && here.ngrams >= min_coverage_ * static_cast<double>(index_.ngrams_of(item).size()))
      held.push_back({item, *here.first});
  return held;
}

std::vector<HeldItem> Verdict::damning(std::span<const DocumentHit> hits) const {
  std::vector<HeldItem> items = held(hits);
  std::erase_if(items, [&](const HeldItem& item) { return is_report_only(item.item); });
  return items;
}

std::unordered_set<uint32_t> Verdict::cut_ngrams(std::span<const DocumentHit> hits,
                                                 const std::vector<HeldItem>& damning) const {
  std::unordered_set<uint32_t> goes;
  for (const DocumentHit& hit : hits) {
    const bool of_damning = std::ranges::any_of(index_.items_of(hit.ngram), [&](uint32_t item) {
      return std::ranges::binary_search(damning, item, {}, &HeldItem::item);
    });
    if (of_damning && !is_exempt(hit.ngram)) goes.insert(hit.ngram);
  }
  return goes;
}

std::string without_windows(std::string_view text, NgramSearch& search, const std::unordered_set<uint32_t>& goes,
                            uint64_t& cuts) {
  const PlacedWords placed(text);
  std::string left;
  size_t at = 0;  // of the text, not yet copied or cut
  cuts = 0;
  for (const NgramHit& hit : search.find(placed.words)) {
    if (!goes.contains(hit.ngram)) continue;
    const size_t begin = back(text, placed.pieces[hit.word].begin, kCutCharacters);
    const size_t end = forth(text, placed.pieces[hit.word + search.length(hit.ngram) - 1].end, kCutCharacters);
    if (begin > at || cuts == 0) {
      left += text.substr(at, std::max(begin, at) - at);
      if (!left.empty() && left.back() != '\n') left += '\n';
      ++cuts;
    }
    at = std::max(at, end);
  }
  while (cuts > 0 && !left.empty() && at < text.size() && text[at] == '\n') ++at;  // one line end, not two
  return left += text.substr(at);
}

}  // namespace coppice
