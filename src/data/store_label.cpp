#include "src/data/store_label.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "src/data/label_import.h"

namespace coppice {

namespace {

/// A draw must be an id of ours: to leave out one that is none would favour the others.
int32_t checked_draw(const LinePlace& line, const LabelFingerprint& fingerprint, int64_t id) {
  if (id < 0 || id >= fingerprint.vocab_size)
    line.refuse(fmt::format("draw {} is outside the vocabulary of {}",
                            id < 0 ? "that is no whole number from 0 on" : std::to_string(id), fingerprint.vocab_size));
  return static_cast<int32_t>(id);
}

StoredToken store_draws(const LinePlace& line, const LabelFingerprint& fingerprint, const TokenLabels& given,
                        uint64_t token, ShardLabels& labels) {
  const uint64_t row = labels.append({token, token + 1}), k = given.choices.size();
  for (uint64_t i = 0; i < k; ++i) {
    labels.id[row * k + i] = checked_draw(line, fingerprint, given.choices[i].id);
    if (labels.has_weights) labels.log_weight[row * k + i] = static_cast<float>(given.choices[i].logp);
  }
  return {.first = labels.id[row * k]};
}

/// Draws of what the ids of a row leave over: as many as the tier has, or none of nothing.
void store_tail_draws(const LinePlace& line, const LabelFingerprint& fingerprint, const TokenLabels& given,
                      uint64_t row, ShardLabels& labels) {
  const bool nothing = std::isinf(static_cast<float>(labels.tail[row]));
  if (nothing != given.drawn.empty())
    line.refuse(nothing ? "\"tail_draws\" holds draws at a token whose ids leave nothing over"
                        : fmt::format("\"tail_draws\" holds none at a token whose ids leave {:.2g} over",
                                      std::exp(static_cast<float>(labels.tail[row]))));
  const auto k = static_cast<size_t>(fingerprint.k);
  const auto ids = labels.id.begin() + static_cast<std::ptrdiff_t>(row * k);
  for (size_t i = 0; i < given.drawn.size(); ++i) {
    const int32_t id = checked_draw(line, fingerprint, given.drawn[i]);
    if (std::find(ids, ids + static_cast<std::ptrdiff_t>(k), id) != ids + static_cast<std::ptrdiff_t>(k))
      line.refuse(fmt::format("draw {} of what a token's ids leave over is one of these ids", id));
    labels.drawn[row * given.drawn.size() + i] = id;
  }
}

/// Rows of a padded output table that may stand among the most probable ids. What is drawn of all others lacks them.
int64_t padded_rows(const LabelFingerprint& fingerprint) { return fingerprint.has_tail_draws() ? 0 : kPaddedRows; }

StoredToken store_choices(const LinePlace& line, const LabelFingerprint& fingerprint, const TokenLabels& given,
                          uint64_t token, ShardLabels& labels) {
  StoredToken stored;
  const auto k = static_cast<size_t>(fingerprint.k);
  const uint64_t row = labels.append({token, token + 1});
  double mass = 0, rest = 0;  // of the ids that are kept, of those that are left out
  size_t kept = 0;
  for (const LabelChoice& choice : given.choices) {
    if (choice.id < 0 || choice.id >= fingerprint.vocab_size + padded_rows(fingerprint))
      line.refuse(fmt::format("id {} is outside the vocabulary of {}",
                              choice.id < 0 ? "that is no whole number from 0 on" : std::to_string(choice.id),
                              fingerprint.vocab_size));
    if (choice.id >= fingerprint.vocab_size || kept == k) {
      stored.padded += choice.id >= fingerprint.vocab_size;
      rest += std::exp(choice.logp);
      continue;
    }
    for (size_t other = 0; other < kept; ++other)
      if (labels.id[row * k + other] == choice.id) line.refuse(fmt::format("id {} stands twice at a token", choice.id));
    labels.id[row * k + kept] = static_cast<int32_t>(choice.id);
    if (fingerprint.has_logp()) labels.logp[row * k + kept] = static_cast<float>(choice.logp);
    mass += std::exp(choice.logp);
    ++kept;
  }
  stored.first = labels.id[row * k];
  if (!fingerprint.has_tail() || kept == 0) return stored;
  const double missing = given.has_tail ? std::exp(given.tail) + rest : std::max(0.0, 1 - mass);
  labels.tail[row] = static_cast<float>(given.has_tail && rest == 0 ? given.tail
                                        : missing > 0               ? std::log(missing)
                                                                    : -std::numeric_limits<double>::infinity());
  if (fingerprint.has_tail_draws()) store_tail_draws(line, fingerprint, given, row, labels);
  return stored;
}

}  // namespace

StoredToken store_label(const LinePlace& line, const LabelFingerprint& fingerprint, const TokenLabels& given,
                        uint64_t token, ShardLabels& labels) {
  if (!given.choices.empty())
    return (fingerprint.has_draws() ? store_draws : store_choices)(line, fingerprint, given, token, labels);
  if (!given.drawn.empty()) line.refuse("\"tail_draws\" holds draws at a token without ids");
  return {};
}

}  // namespace coppice
