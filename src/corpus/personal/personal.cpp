#include "src/corpus/personal/personal.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "src/base/errors.h"
#include "src/corpus/personal/kinds.h"
#include "src/corpus/personal/secrets.h"

namespace coppice {
namespace {

std::vector<std::string> all_kinds() {
  std::vector<std::string> names;
  for (const PersonalKind& kind : personal_kinds()) names.emplace_back(kind.name);
  return names;
}

/// Of spans that meet the first stays, of two with one start the longer.
void make_disjoint(std::vector<PersonalSpan>& spans) {
  std::ranges::stable_sort(spans, [](const PersonalSpan& a, const PersonalSpan& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  size_t end = 0;
  std::erase_if(spans, [&](const PersonalSpan& span) {
    if (span.begin < end) return true;
    end = span.end;
    return false;
  });
}

}  // namespace

PersonalFinder::PersonalFinder() : PersonalFinder(all_kinds(), /*is_code=*/false, {}) {}

PersonalFinder::PersonalFinder(const std::vector<std::string>& kinds, bool is_code, std::vector<UserPattern> patterns)
    : names_(all_kinds()),
      is_code_(is_code && std::ranges::find(kinds, "SECRET") != kinds.end()),
      patterns_(std::move(patterns)) {
  static_assert(sizeof(kinds_of_[0]) == 1);
  COPPICE_CHECK(names_.size() <= 8, "a bit a kind");
  for (const std::string& name : kinds) {
    const auto place = static_cast<size_t>(std::ranges::find(names_, name) - names_.begin());
    COPPICE_CHECK(place < names_.size(), "no kind " + name);
    for (const char anchor : personal_kinds()[place].anchors)
      kinds_of_[static_cast<unsigned char>(anchor)] |= static_cast<uint8_t>(1U << place);
  }
  for (const UserPattern& pattern : patterns_) names_.push_back(pattern.name());
}

bool PersonalFinder::find(std::string_view text, std::vector<PersonalSpan>& spans) const {
  spans.clear();
  const std::span<const PersonalKind> rows = personal_kinds();
  size_t from = 0;  // the end of the last match
  for (size_t at = 0; at < text.size(); ++at) {
    uint8_t kinds = kinds_of_[static_cast<unsigned char>(text[at])];
    if (kinds == 0) continue;
    if (is_digit(text[at]) && at > from && is_digit(text[at - 1])) continue;  // within a run of digits nothing begins
    for (; kinds != 0; kinds &= static_cast<uint8_t>(kinds - 1)) {
      const auto kind = static_cast<uint32_t>(std::countr_zero(kinds));
      const std::optional<TextSpan> match = rows[kind].match(text, at, from);
      if (!match) continue;
      spans.push_back({match->begin, match->end, kind});
      from = match->end;
      at = from - 1;
      break;
    }
  }
  const size_t found = spans.size();
  if (is_code_) {
    const auto secret = static_cast<uint32_t>(std::ranges::find(names_, "SECRET") - names_.begin());
    for (const TextSpan& span : find_assigned_secrets(text)) spans.push_back({span.begin, span.end, secret});
  }
  std::vector<TextSpan> matches;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    matches.clear();
    if (!patterns_[i].find(text, matches)) return false;
    for (const TextSpan& span : matches)
      spans.push_back({span.begin, span.end, static_cast<uint32_t>(rows.size() + i)});
  }
  if (spans.size() > found) make_disjoint(spans);
  return true;
}

std::string replaced(std::string_view text, const std::vector<PersonalSpan>& spans, const PersonalFinder& finder,
                     Replacement by, uint64_t key) {
  const std::span<const PersonalKind> rows = personal_kinds();
  std::string out;
  out.reserve(text.size());
  size_t at = 0;
  for (const PersonalSpan& span : spans) {
    out += text.substr(at, span.begin - at);
    const std::string_view original = text.substr(span.begin, span.end - span.begin);
    if (by == Replacement::placeholder) (((out += '<') += finder.kind_names()[span.kind]) += '>');
    if (by == Replacement::fake) {
      const uint64_t number = XXH3_64bits_withSeed(original.data(), original.size(), key);
      out += span.kind < rows.size() ? rows[span.kind].fake(original, number) : fake_of_same_form(original, number);
    }
    at = span.end;
  }
  return out += text.substr(at);
}

std::string masked(std::string_view text) {
  static const PersonalFinder kFinder;
  std::vector<PersonalSpan> spans;
  kFinder.find(text, spans);
  return replaced(text, spans, kFinder, Replacement::placeholder, 0);
}

}  // namespace coppice
