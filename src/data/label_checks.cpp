#include "src/data/label_checks.h"

#include <fmt/format.h>

#include <cmath>

#include "src/data/label_cache_files.h"
#include "src/data/label_import.h"

namespace coppice {

MassCheck::MassCheck(const LabelFingerprint& fingerprint, bool ours, bool low_mass)
    : tolerance_(mass_tolerance(fingerprint)),
      most_(1 + (ours || fingerprint.is_coded() ? tolerance_ : kMassAboveOne)),
      judges_low_(!ours && !low_mass) {}

void MassCheck::add(const LinePlace& line, const TokenLabels& token) {
  if (token.choices.empty()) return;
  double mass = 0, base_10 = 0, base_2 = 0;
  for (const LabelChoice& choice : token.choices) {
    mass += std::exp(choice.logp);
    base_10 += std::pow(10, choice.logp);
    base_2 += std::exp2(choice.logp);
  }
  if (mass > most_)
    line.refuse(fmt::format(
        "the probabilities of {} ids at a token add up to {:.4g}, expected 1 at most: {}", token.choices.size(), mass,
        base_10 <= most_ ? "logarithms of base 10? multiply them by 2.302585 (log-probabilities are natural logarithms)"
                         : "raw logits? take their log-softmax over the whole vocabulary (natural logarithm)"));
  if (token.has_tail) {
    const double sum = mass + std::exp(token.tail);
    if (!(std::abs(sum - 1) <= tolerance_))
      line.refuse(
          fmt::format("the probabilities of {} ids at a token and its tail add up to {:.4g}, expected 1: most likely "
                      "logarithms of another base, or "
                      "\"tail_logprobs\" of something else than the log of all that the ids leave",
                      token.choices.size(), sum));
  }
  if (token.has_tail || !judges_low_) return;
  ++tokens_;
  if (mass >= kLeastMass) return;
  if (low_++ == 0) first_low_ = line;
  fits_base_2_ += base_2 >= kLeastMass && base_2 <= most_;
}

void MassCheck::finish() const {
  if (2 * low_ <= tokens_) return;
  const char* cause = 2 * fits_base_2_ > low_ ? "logarithms of base 2 (multiply them by 0.693147)"
                                              : "raw logits, or log-probabilities divided by a temperature (take the "
                                                "log-softmax over the whole vocabulary)";
  first_low_.refuse(fmt::format(
      "the probabilities of {} of {} tokens add up to less than {}, the first time here, and no \"tail_logprobs\" say "
      "that this is so: "
      "most likely {}; if it is what the model said, --low-mass (low_mass = true of a label stage) lets it in",
      low_, tokens_, kLeastMass, cause));
}

void WeightCheck::add(const LinePlace& line, const TokenLabels& token) {
  if (token.choices.empty()) return;
  double sum = 0;
  for (const LabelChoice& draw : token.choices) sum += std::exp(draw.logp);
  const double mean = sum / static_cast<double>(token.choices.size());
  if (tokens_++ == 0) first_ = line;
  sum_ += mean;
  squares_ += mean * mean;
}

void WeightCheck::finish() const {
  constexpr uint64_t kEnough = 100;              // tokens, for an error of their mean that means something
  constexpr double kErrors = 8, kNearly = 0.02;  // off 1
  if (tokens_ < kEnough) return;
  const auto tokens = static_cast<double>(tokens_);
  const double mean = sum_ / tokens, error = std::sqrt(std::max(0.0, squares_ / tokens - mean * mean) / tokens);
  if (std::abs(mean - 1) <= std::max(kNearly, kErrors * error)) return;
  first_.refuse(
      fmt::format("the weights of draws at {} tokens, the first of them here, average {:.3g}, expected 1: most likely "
                  "weights instead "
                  "of their natural logarithms, or draws from another distribution than softmax(logits / (temperature "
                  "proposal_temperature))",
                  tokens_, mean));
}

PlaceCheck::PlaceCheck(const TokenShards& shards, const LabelImport& options)
    : whose_((options.stage.empty() ? "" : fmt::format("stage '{}' in ", options.stage)) +
             fmt::format("domain '{}'", shards.domain())) {}

void PlaceCheck::add(const LinePlace& line, const std::vector<int64_t>& tokens, const std::vector<int64_t>& labels) {
  if (sample_.labels() == 0) first_ = line;
  sample_.add(tokens, labels);
  if (sample_.is_full()) judge(line);
}

void PlaceCheck::judge(const LinePlace& last) {
  ++part_;
  const LabelAlignment found = sample_.judge(kAlignmentErrorRate / static_cast<double>(part_ * (part_ + 1)));
  if (found.moved())
    first_.refuse(fmt::format("from here to line {}: the labels of {} {}", last.number, whose_, found.complaint()));
  sample_.clear();
}

}  // namespace coppice
