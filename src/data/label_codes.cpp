#include "src/data/label_codes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "src/base/errors.h"
#include "src/data/label_cache.h"

namespace coppice {

namespace {

constexpr double kSteps = 16;  // of a nat
constexpr int kLeast = 255, kLeastTail = 254, kNoTail = 255;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

int code_of(double logp, int least) {
  COPPICE_CHECK(!std::isnan(logp), "a log-probability that is none");
  return static_cast<int>(std::clamp(std::nearbyint(-kSteps * logp), 0.0, double(least)));
}
float logp_of(int code) { return static_cast<float>(-code / kSteps); }

/// Codes of log-probabilities in descending order, the first the only one of its value.
std::vector<int> codes_of(const c10::Half* logp, uint64_t count) {
  std::vector<int> codes(count);
  for (uint64_t i = 0; i < count; ++i) codes[i] = code_of(static_cast<float>(logp[i]), kLeast);
  const int first = codes[0];
  if (std::find(codes.begin() + 1, codes.end(), first) == codes.end()) return codes;
  const bool is_above = -kSteps * static_cast<float>(logp[0]) <= first;  // of its step's middle
  if (first > 0 && (is_above || first == kLeast)) {
    --codes[0];
  } else {
    for (uint64_t i = 1; i < count; ++i) codes[i] += codes[i] == first;
  }
  return codes;
}

}  // namespace

void normalise(float* logp, uint64_t k, float& tail) {
  float sum = std::exp(tail);
  for (uint64_t i = 0; i < k; ++i) sum += std::exp(logp[i]);
  const float log_sum = std::log(sum);
  for (uint64_t i = 0; i < k; ++i) logp[i] -= log_sum;
  tail -= log_sum;
}

LabelCode::LabelCode(uint64_t k, uint64_t draws, uint64_t vocab_size) : k_(k), draws_(draws), ids_(k, vocab_size) {
  if (draws > 0) rest_.emplace(draws, vocab_size);
  id_bytes_ = (ids_.bits() + (rest_ ? rest_->bits() : 0) + 7) / 8;
}

void LabelCode::write(const GivenLabel& label, uint8_t* row) const {
  const auto count = static_cast<uint64_t>(std::find(label.id, label.id + k_, kNoLabel) - label.id);
  if (count == 0) return;
  const std::vector<int> codes = codes_of(label.logp, count);
  std::vector<std::pair<int64_t, int>> sorted(count);
  for (uint64_t i = 0; i < count; ++i) sorted[i] = {label.id[i], codes[i]};
  std::ranges::sort(sorted);
  std::vector<int64_t> sorted_id(count);
  uint8_t* const code = row + id_bytes_;
  for (uint64_t i = 0; i < count; ++i) {
    sorted_id[i] = sorted[i].first;
    code[i] = static_cast<uint8_t>(sorted[i].second);
    COPPICE_CHECK(i == 0 || sorted_id[i - 1] < sorted_id[i], "an id stands twice in a label");
  }
  ids_.write(sorted_id, row, 0);
  const auto tail = static_cast<float>(label.tail);
  code[k_] = static_cast<uint8_t>(tail == kNothing ? kNoTail : code_of(tail, kLeastTail));
  if (!rest_) return;
  std::vector<int64_t> drawn;
  if (label.drawn[0] != kNoLabel) drawn.assign(label.drawn, label.drawn + draws_);
  std::ranges::sort(drawn);
  COPPICE_CHECK(drawn.empty() == (tail == kNothing), "draws of nothing, or no draws of what is left over");
  for (const int64_t id : drawn)
    COPPICE_CHECK(!std::ranges::binary_search(sorted_id, id), "a draw of the rest is none of the rest");
  rest_->write(drawn, row, ids_.bits());
}

/// The ids and draws, in order; what is wrong with them.
const char* LabelCode::read_ids(const uint8_t* row, uint64_t* count, LabelRow& label) const {
  sorted_.resize(k_);
  const auto ids = ids_.read(row, 0, sorted_.data());
  if (!ids) return "its ids are out of order or outside the vocabulary";
  *count = *ids;
  for (uint64_t i = 1; i < *ids; ++i)
    if (sorted_[i - 1] == sorted_[i]) return "an id stands twice in it";
  uint64_t bits = ids_.bits();
  if (rest_) {
    const auto drawn = rest_->read(row, bits, label.drawn);
    bits += rest_->bits();
    if (!drawn || (*drawn != 0 && *drawn != draws_))
      return "its draws are out of order, too few or outside the vocabulary";
    if ((*drawn == 0) != (*ids == 0 || row[id_bytes_ + k_] == kNoTail))
      return "it has draws of nothing, or none of what its ids leave over";
    const auto end = sorted_.begin() + static_cast<std::ptrdiff_t>(*ids);
    for (uint64_t i = 0; i < *drawn; ++i)
      if (std::binary_search(sorted_.begin(), end, label.drawn[i])) return "a draw of the rest is one of its ids";
    if (*drawn == 0) std::fill_n(label.drawn, draws_, int64_t{kNoLabel});
  }
  if (const uint64_t unused = 8 * id_bytes_ - bits; unused > 0 && row[id_bytes_ - 1] >> (8 - unused) != 0)
    return "it holds more than its ids";
  return nullptr;
}

const char* LabelCode::read(const uint8_t* row, LabelRow& label) const {
  std::fill_n(label.id, k_, int64_t{kNoLabel});
  std::fill_n(label.logp, k_, kNothing);
  label.tail = kNothing;
  uint64_t count = 0;
  if (const char* complaint = read_ids(row, &count, label)) return complaint;
  const uint8_t* const code = row + id_bytes_;
  if (std::any_of(code + count, code + k_ + (count == 0), [](uint8_t value) { return value != 0; }))
    return "it holds probabilities of no ids";
  if (count == 0) return nullptr;
  std::array<uint64_t, kLeast + 2> place{};  // of the ids of a code: behind those of smaller ones
  for (uint64_t i = 0; i < count; ++i) ++place[code[i] + 1U];
  for (size_t value = 1; value < place.size(); ++value) place[value] += place[value - 1];
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = place[code[i]]++;
    label.id[at] = sorted_[i];
    label.logp[at] = logp_of(code[i]);
  }
  if (code[k_] != kNoTail) label.tail = logp_of(code[k_]);
  return nullptr;
}

}  // namespace coppice
