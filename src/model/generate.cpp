// Greedy or sampled continuation. When the positions the model knows are used up, the newest half is read again from
// position 0.
#include "src/model/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/model/decode_session.h"

namespace coppice {
namespace {

void check_options(const GenerateOptions& options) {
  if (options.max_new_tokens < 0)
    throw UserError::recipe("max_new_tokens", fmt::format("got {}, expected 0 or more", options.max_new_tokens));
  if (!std::isfinite(options.sampling_temperature) || options.sampling_temperature < 0)
    throw UserError::recipe("sampling_temperature",
                            fmt::format("got {}, expected 0 or more", options.sampling_temperature));
  if (!(options.top_p > 0 && options.top_p <= 1))
    throw UserError::recipe("top_p", fmt::format("got {}, expected above 0, at most 1", options.top_p));
}

/// Draws tokens from softmax(logits / temperature); its tables are kept from token to token.
class Sampler {
 public:
  explicit Sampler(const GenerateOptions& options) : options_(options) {}

  int64_t draw(std::span<const float> logits_V, uint64_t number) {
    const double largest = double{*std::ranges::max_element(logits_V)};
    weight_V_.resize(logits_V.size());
    for (size_t i = 0; i < logits_V.size(); ++i)
      weight_V_[i] = std::exp((double{logits_V[i]} - largest) / options_.sampling_temperature);
    if (options_.top_p < 1) keep_nucleus();
    std::partial_sum(weight_V_.begin(), weight_V_.end(), weight_V_.begin());
    const double place = random_uniform(options_.seed, Purpose::sampling, 0, number) * weight_V_.back();
    const auto found = std::ranges::upper_bound(weight_V_, place) - weight_V_.begin();
    return std::min<int64_t>(found, std::ssize(weight_V_) - 1);
  }

 private:
  /// Zero outside the nucleus: the most probable tokens (ties to the lowest id) until their share is top_p (Holtzman et
  /// al., arXiv 1904.09751).
  void keep_nucleus() {
    const double sum = std::accumulate(weight_V_.begin(), weight_V_.end(), 0.0);
    // Even all tokens below this weight together hold less than 1 - top_p: none of them belongs to it.
    const double floor = (1 - options_.top_p) * sum / static_cast<double>(weight_V_.size());
    candidates_.clear();
    for (size_t i = 0; i < weight_V_.size(); ++i)
      if (weight_V_[i] >= floor) candidates_.push_back(i);
    std::ranges::stable_sort(candidates_, std::greater<>(), [&](size_t i) { return weight_V_[i]; });
    double held = 0;
    auto end = candidates_.begin();
    while (end != candidates_.end() && held < options_.top_p * sum) held += weight_V_[*end++];
    std::sort(candidates_.begin(), end);
    auto next = candidates_.begin();
    for (size_t i = 0; i < weight_V_.size(); ++i) {
      if (next != end && *next == i)
        ++next;
      else
        weight_V_[i] = 0;
    }
  }

  GenerateOptions options_;
  std::vector<double> weight_V_;
  std::vector<size_t> candidates_;
};

}  // namespace

std::vector<int64_t> generate(const Model& model, const std::vector<int64_t>& prompt, int64_t eos_id,
                              const GenerateOptions& options, const std::function<bool(int64_t)>& on_token) {
  check_options(options);
  std::vector<int64_t> text = prompt.empty() ? std::vector<int64_t>{eos_id} : prompt;
  for (const int64_t id : text)
    if (id < 0 || id >= model.config.vocab_size)
      throw UserError::recipe("prompt",
                              fmt::format("token {} is outside the vocabulary of {}", id, model.config.vocab_size));
  const auto wanted = std::ssize(text) + options.max_new_tokens;
  DecodeSession session(model, std::min<int64_t>(wanted, model.config.max_position_embeddings));
  const auto newest = [&](int64_t count) {
    return std::span<const int64_t>(text).last(static_cast<size_t>(std::min<int64_t>(count, std::ssize(text))));
  };

  Sampler sampler(options);
  std::vector<int64_t> added;
  while (std::ssize(added) < options.max_new_tokens) {
    int64_t unread = 1;
    if (added.empty()) {
      unread = session.capacity();
    } else if (session.length() == session.capacity()) {
      session.clear();
      unread = std::max<int64_t>(session.capacity() / 2, 1);
    }
    const std::span<const float> logits_V = session.read(newest(unread));
    const int64_t next = options.sampling_temperature == 0.0
                             ? std::ranges::max_element(logits_V) - logits_V.begin()
                             : sampler.draw(logits_V, static_cast<uint64_t>(added.size()));
    text.push_back(next);
    added.push_back(next);
    if (on_token && !on_token(next)) break;
    if (next == eos_id) break;
  }
  return added;
}

}  // namespace coppice
