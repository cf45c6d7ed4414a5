#include "src/text/survey_corpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/text/repeated_ids.h"

namespace coppice {
namespace {

/// The documents with the smallest id hashes, as many as fit into `quota` bytes.
class Sample {
 public:
  explicit Sample(uint64_t quota) : quota_(quota) {}
  void offer(uint64_t hash, std::string&& text) {
    if (bytes_ >= quota_ && !kept_.empty() && hash >= kept_.front().first) return;
    bytes_ += text.size();
    kept_.emplace_back(hash, std::move(text));
    std::ranges::push_heap(kept_);  // the largest hash in front
    while (kept_.size() > 1 && bytes_ - kept_.front().second.size() >= quota_) {
      std::ranges::pop_heap(kept_);
      bytes_ -= kept_.back().second.size();
      kept_.pop_back();
    }
  }
  /// In hash order.
  void move_to(std::vector<std::string>& texts) {
    std::ranges::sort(kept_);
    for (auto& [hash, text] : kept_) texts.push_back(std::move(text));
  }

 private:
  const uint64_t quota_;
  uint64_t bytes_ = 0;
  std::vector<std::pair<uint64_t, std::string>> kept_;
};

void warn_of_repeated_ids(const CorpusDomain& domain, const RepeatedIds& ids) {
  if (ids.count() > 0)
    log_warning(fmt::format(
        "domain '{}': {} documents have an id that came before; labels of other programs are matched by their tokens "
        "as well: {}{}",
        domain.name, ids.count(), fmt::join(ids.first(), "; "), ids.count() > ids.first().size() ? "; ..." : ""));
}

/// Adds one domain; its sample goes to survey.sample.
void survey_domain(const SurveyOptions& options, const CorpusDomain& domain, CorpusSurvey& survey) {
  survey.domains.push_back(domain.name);
  std::vector<uint64_t>&held_texts = survey.held_texts.emplace_back(),
  &tuning_texts = survey.tuning_texts.emplace_back();
  if (domain.is_gone) {
    log_warning(
        fmt::format("domain '{}': {} is gone, so its held-out texts are not looked for in what is tokenized now",
                    domain.name, domain.path.string()));
    survey.reports.emplace_back();
    return;
  }
  Sample sample(options.sample_bytes.value_or(0));
  RepeatedIds ids;
  const auto visit = [&](Document&& document) {
    if (stop_requested()) throw Stopped("stopped while reading the corpus; run again to go on");
    ids.look(document);
    if (is_heldout(document.id, options.heldout_share)) {
      held_texts.push_back(text_hash(document.text));
    } else if (is_tuning(document.id, options.tuning_share)) {
      tuning_texts.push_back(text_hash(document.text));
    } else if (options.sample_bytes) {
      sample.offer(document_hash(document.id), std::move(document.text));
    }
  };
  survey.reports.push_back(for_each_document(domain.path, visit, domain.reading));
  log_corpus_report(domain.path, survey.reports.back(), domain.reading);
  warn_of_repeated_ids(domain, ids);
  sample.move_to(survey.sample);
  for (std::vector<uint64_t>* texts : {&held_texts, &tuning_texts}) {
    std::ranges::sort(*texts);
    texts->erase(std::ranges::unique(*texts).begin(), texts->end());
  }
}

}  // namespace

CorpusSurvey survey_corpus(const SurveyOptions& options) {
  CorpusSurvey survey;
  for (const CorpusDomain& domain : options.domains) survey_domain(options, domain, survey);
  return survey;
}

RepeatedTexts::RepeatedTexts(const std::vector<std::vector<uint64_t>>& texts) : texts_(texts) {
  for (const std::vector<uint64_t>& of_domain : texts) seen_.emplace_back(of_domain.size());
}

void RepeatedTexts::look(std::string_view training_text) {
  const uint64_t hash = text_hash(training_text);
  for (size_t domain = 0; domain < seen_.size(); ++domain) {
    const std::vector<uint64_t>& texts = texts_[domain];
    if (const auto found = std::ranges::lower_bound(texts, hash); found != texts.end() && *found == hash)
      seen_[domain][static_cast<size_t>(found - texts.begin())] = true;
  }
}

std::vector<uint64_t> RepeatedTexts::counts() const {
  std::vector<uint64_t> counts;
  for (const std::vector<bool>& seen : seen_) counts.push_back(static_cast<uint64_t>(std::ranges::count(seen, true)));
  return counts;
}

}  // namespace coppice
