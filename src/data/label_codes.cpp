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

LabelCode::LabelCode(uint64_t k, uint64_t vocab_size) : k_(k), ids_(k, vocab_size), id_bytes_((ids_.bits() + 7) / 8) {}

void LabelCode::write(const int32_t* id, const c10::Half* logp, c10::Half tail, uint8_t* row) const {
  const auto count = static_cast<uint64_t>(std::find(id, id + k_, kNoLabel) - id);
  if (count == 0) return;
  const std::vector<int> codes = codes_of(logp, count);
  std::vector<std::pair<int64_t, int>> sorted(count);
  for (uint64_t i = 0; i < count; ++i) sorted[i] = {id[i], codes[i]};
  std::ranges::sort(sorted);
  std::vector<int64_t> sorted_id(count);
  uint8_t* const code = row + id_bytes_;
  for (uint64_t i = 0; i < count; ++i) {
    sorted_id[i] = sorted[i].first;
    code[i] = static_cast<uint8_t>(sorted[i].second);
    COPPICE_CHECK(i == 0 || sorted_id[i - 1] < sorted_id[i], "an id stands twice in a label");
  }
  ids_.write(sorted_id, row, 0);
  const auto left = static_cast<float>(tail);
  code[k_] = static_cast<uint8_t>(left == kNothing ? kNoTail : code_of(left, kLeastTail));
}

const char* LabelCode::read(const uint8_t* row, int64_t* id, float* logp, float* tail) const {
  std::fill_n(id, k_, int64_t{kNoLabel});
  std::fill_n(logp, k_, kNothing);
  *tail = kNothing;
  sorted_.resize(k_);
  const auto count = ids_.read(row, 0, sorted_.data());
  if (!count) return "its ids are out of order or outside the vocabulary";
  for (uint64_t i = 1; i < *count; ++i)
    if (sorted_[i - 1] == sorted_[i]) return "an id stands twice in it";
  if (const uint64_t unused = 8 * id_bytes_ - ids_.bits(); unused > 0 && row[id_bytes_ - 1] >> (8 - unused) != 0)
    return "it holds more than its ids";
  const uint8_t* const code = row + id_bytes_;
  if (std::any_of(code + *count, code + k_ + (*count == 0), [](uint8_t value) { return value != 0; }))
    return "it holds probabilities of no ids";
  if (*count == 0) return nullptr;
  std::array<uint64_t, kLeast + 2> place{};  // of the ids of a code: behind those of smaller ones
  for (uint64_t i = 0; i < *count; ++i) ++place[code[i] + 1U];
  for (size_t value = 1; value < place.size(); ++value) place[value] += place[value - 1];
  for (uint64_t i = 0; i < *count; ++i) {
    const uint64_t at = place[code[i]]++;
    id[at] = sorted_[i];
    logp[at] = logp_of(code[i]);
  }
  if (code[k_] != kNoTail) *tail = logp_of(code[k_]);
  return nullptr;
}

}  // namespace coppice
