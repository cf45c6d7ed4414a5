#include "recipes/stages/survey_corpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/text/repeated_ids.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "coppice.corpus";

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

double percent(uint64_t part, uint64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<uint64_t>(whole, 1));
}

}  // namespace

CorpusOptions corpus_options(const Recipe& recipe, const DomainOptions& domain) {
  return {.text_key = domain.text_key, .max_bad = recipe.data.max_bad};
}

CorpusSurvey survey_corpus(const Recipe& recipe, bool with_sample) {
  CorpusSurvey survey;
  const uint64_t quota = static_cast<uint64_t>(recipe.tokenizer.training_bytes) / recipe.data.domains.size();
  for (const DomainOptions& domain : recipe.data.domains) {
    Sample sample(quota);
    std::vector<uint64_t>& held_texts = survey.held_texts.emplace_back();
    if (recipe.sources->holds(domain.path)) {  // it is tokenized, or its absence would have been refused before
      log_warning(
          fmt::format("domain '{}': {} is gone, so its held-out texts are not looked for in what is tokenized now",
                      domain.name, domain.path));
      survey.reports.emplace_back();
      continue;
    }
    const CorpusOptions options = corpus_options(recipe, domain);
    RepeatedIds ids;
    const auto visit = [&](Document&& document) {
      if (stop_requested()) throw Stopped("stopped while reading the corpus; run again to go on");
      ids.look(document);
      if (is_heldout(document.id, recipe.data.heldout_share)) {
        held_texts.push_back(text_hash(document.text));
      } else if (with_sample) {
        sample.offer(document_hash(document.id), std::move(document.text));
      }
    };
    survey.reports.push_back(for_each_document(domain.path, visit, options));
    log_corpus_report(domain.path, survey.reports.back(), options);
    if (ids.count() > 0)
      log_warning(fmt::format(
          "domain '{}': {} documents have an id that came before; labels of other programs are matched by their tokens "
          "as well: {}{}",
          domain.name, ids.count(), fmt::join(ids.first(), "; "), ids.count() > ids.first().size() ? "; ..." : ""));
    sample.move_to(survey.sample);
    std::ranges::sort(held_texts);
    held_texts.erase(std::ranges::unique(held_texts).begin(), held_texts.end());
  }
  return survey;
}

RepeatedTexts::RepeatedTexts(const CorpusSurvey& survey) : survey_(survey) {
  for (const std::vector<uint64_t>& texts : survey.held_texts) seen_.emplace_back(texts.size());
}

void RepeatedTexts::look(std::string_view training_text) {
  const uint64_t hash = text_hash(training_text);
  for (size_t domain = 0; domain < seen_.size(); ++domain) {
    const std::vector<uint64_t>& texts = survey_.held_texts[domain];
    if (const auto found = std::ranges::lower_bound(texts, hash); found != texts.end() && *found == hash)
      seen_[domain][static_cast<size_t>(found - texts.begin())] = true;
  }
}

std::vector<uint64_t> RepeatedTexts::counts() const {
  std::vector<uint64_t> counts;
  for (const std::vector<bool>& seen : seen_) counts.push_back(static_cast<uint64_t>(std::ranges::count(seen, true)));
  return counts;
}

Json corpus_record(const Recipe& recipe, size_t domain, const CorpusSurvey& survey, const RepeatedTexts& repeated) {
  const CorpusReport& report = survey.reports[domain];
  Json bad = Json::array(), repeats = Json::array();
  for (const BadRecords& file : report.bad)
    bad.push_back({{"file", file.file}, {"bad", file.bad}, {"records", file.records}, {"first", file.first}});
  const std::vector<uint64_t> counts = repeated.counts();
  for (size_t other = 0; other < counts.size(); ++other)
    if (counts[other] > 0)
      repeats.push_back({{"heldout_of", recipe.data.domains[other].name},
                         {"texts", counts[other]},
                         {"of", survey.held_texts[other].size()}});
  return {{"format", kFormat},
          {"version", 1},
          {"domain", recipe.data.domains[domain].name},
          {"documents", report.documents},
          {"empty", report.empty},
          {"bad_records", report.num_bad()},
          {"bad", bad},
          {"repeats", repeats}};
}

std::vector<CorpusNote> corpus_notes(const fs::path& data_folder) {
  std::vector<CorpusNote> notes;
  std::vector<fs::path> files;
  if (!fs::exists(data_folder / "corpus")) return notes;
  for (const auto& entry : fs::directory_iterator(data_folder / "corpus"))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    const std::string where = file.string();
    const Json record = read_sealed(file, kFormat, 1);
    const std::string domain = string_at(record, "domain", where);
    if (const uint64_t bad = unsigned_at(record, "bad_records", where))
      notes.push_back({.about = fmt::format("domain '{}'", domain),
                       .text = fmt::format("{} records were no documents and were left out, {} documents were read",
                                           bad, unsigned_at(record, "documents", where))});
    for (const Json& repeat : array_at(record, "repeats", where)) {
      const std::string heldout = string_at(repeat, "heldout_of", where);
      const uint64_t texts = unsigned_at(repeat, "texts", where), of = unsigned_at(repeat, "of", where);
      notes.push_back({.about = fmt::format("domain '{}'", heldout),
                       .text = fmt::format("{} of {} held-out texts ({:.2f}%) stand word for word in {}: their loss "
                                           "shows what was learned by heart; take repeated "
                                           "texts out of the corpus",
                                           texts, of, percent(texts, of),
                                           heldout == domain ? "its training part too"
                                                             : fmt::format("the training part of '{}'", domain)),
                       .spoils = true});
    }
  }
  return notes;
}

}  // namespace coppice
