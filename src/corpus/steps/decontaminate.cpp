// The step `decontaminate`: documents that hold items of benchmarks go, or lose the passage; phrases so common that
// they say nothing are exempt (Apple's foundation models, arXiv 2407.21075: n-grams of 4 to 13 words, 1,000 times).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/cli/options.h"
#include "src/corpus/decontaminate/contamination_report.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr double kFewWords = 1e9;
constexpr double kWordBytes = 6;  // of English text, about

struct DecontaminateOptions {
  std::vector<std::string> benchmarks;
  std::vector<std::string> parts = {"question", "question_answer"};
  std::string ngrams = "longest";
  int64_t common_at_least = 1000;
  std::string count = "occurrences";
  std::string action = "document";
  double min_coverage = 0;
  std::vector<std::string> report_only;

  template <class Field>
  void visit_fields(Field& field) {
    field("benchmarks", benchmarks, Mark::place, "files and patterns, a file a benchmark: benchmarks/*.jsonl");
    field("parts", parts, Mark::decides, "of an item: question, question_answer (with the right answer)");
    field("ngrams", ngrams, Mark::decides, "longest: n = min(13, words); all: every n from 4 to 13");
    field("common_at_least", common_at_least, Mark::decides, "n-grams with this count or more are exempt; 0 = none is");
    field("count", count, Mark::decides, "occurrences, or documents that hold the n-gram");
    field("action", action, Mark::decides, "document: it goes; span: the passage and 200 characters around it go");
    field("min_coverage", min_coverage, Mark::decides, "share of an item's n-grams that a document must hold; 0 = any");
    field("report_only", report_only, Mark::decides, "benchmarks of ordinary public texts, for which no document goes");
  }
};

/// One of two words.
bool is_second(const OptionTable& table, const char* key, const std::string& value, const char* first,
               const char* second) {
  if (value != first && value != second)
    throw UserError::recipe(table.where(key),
                            fmt::format("{}: got '{}', expected {} or {}", key, printable(value), first, second));
  return value == second;
}

class DecontaminateStep : public GroupStep {
 public:
  DecontaminateStep(OptionTable& table, const DecontaminateOptions& options) : options_(options) {
    const auto refuse = [&](const char* key, const std::string& message) {
      throw UserError::recipe(table.where(key), fmt::format("{}: {}", key, message));
    };
    if (options.benchmarks.empty()) refuse("benchmarks", "none is given; expected files as benchmarks/*.jsonl");
    files_ = benchmark_files(options.benchmarks, table.where("benchmarks"));
    index_options_.every_length = is_second(table, "ngrams", options.ngrams, "longest", "all");
    index_options_.questions = index_options_.answers = false;
    for (const std::string& part : options.parts)
      (is_second(table, "parts", part, "question", "question_answer") ? index_options_.answers
                                                                      : index_options_.questions) = true;
    if (options.parts.empty()) refuse("parts", "none is given; expected question, question_answer or both");
    by_document_ = is_second(table, "count", options.count, "occurrences", "documents");
    cuts_ = is_second(table, "action", options.action, "document", "span");
    if (options.common_at_least < 0)
      refuse("common_at_least", fmt::format("got {}, expected 0 or more", options.common_at_least));
    if (!(options.min_coverage >= 0 && options.min_coverage <= 1))
      refuse("min_coverage", fmt::format("got {}, expected 0 to 1", options.min_coverage));
    for (const std::string& name : options.report_only)
      if (std::ranges::find(files_, name, benchmark_name) == files_.end())
        refuse("report_only",
               fmt::format("'{}' is none of the benchmarks; expected the name of a file without its ending",
                           printable(name)));
  }

  std::vector<Rule> rules() const override { return {{.name = cuts_ ? "nothing_left" : "benchmark_items", .most = 0}}; }
  std::vector<std::string> inputs() const override {
    std::vector<std::string> inputs;
    for (const fs::path& file : files_) inputs.push_back(fmt::format("{} {}", benchmark_name(file), sha256_file(file)));
    return inputs;
  }

  StepForecast forecast(double text_bytes) const override;
  bool changes_texts() const override { return cuts_; }
  std::unique_ptr<GroupNotes> note(const GroupPlace& place, uint32_t file) const override;
  /// As many as keep the counts of a part within a quarter of the memory.
  uint32_t num_parts(const GroupPlace& place) const override {
    const uint64_t at_once = std::max<uint64_t>(place.memory_bytes / 4 / sizeof(uint64_t), 1);
    return static_cast<uint32_t>((index().size() + at_once - 1) / at_once);
  }
  void reduce(const GroupPlace& place, uint32_t part) const override;
  void settle(const GroupPlace& place) const override;
  std::unique_ptr<GroupDecisions> decide(const GroupPlace& place, uint32_t file) const override;

  const NgramIndex& index() const {
    std::call_once(once_, [&] {
      std::vector<Benchmark> benchmarks;
      for (const fs::path& file : files_) benchmarks.push_back(read_benchmark(file));
      index_ = std::make_unique<NgramIndex>(benchmarks, index_options_);
    });
    return *index_;
  }

 private:
  /// Where n-grams of every length are looked for in few words: what to fear; "" elsewhere.
  std::string few_words_warning(double words) const {
    if (!index_options_.every_length || words >= kFewWords) return "";
    return fmt::format(
        "{} words are few for ngrams = \"all\": n-grams of 4 words seldom reach {} there, so that common "
        "phrases take documents with them; \"longest\" is made for that",
        format_count(std::round(words)), options_.common_at_least);
  }
  Verdict verdict(const std::vector<NgramCount>& exempt) const {
    return Verdict(index(), exempt, options_.min_coverage, options_.report_only);
  }

  DecontaminateOptions options_;
  IndexOptions index_options_;
  bool by_document_ = false, cuts_ = false;
  std::vector<fs::path> files_;
  mutable std::once_flag once_;
  mutable std::unique_ptr<const NgramIndex> index_;  // read where the first task needs it
};

// Below the folder of the step: hits/<file>, counts/<part>-of-<parts>, exempt, contamination.json, overlap.jsonl.zst.
fs::path hits_path(const GroupPlace& place, uint32_t file) {
  return place.folder / "hits" / fmt::format("{:06}", file);
}
fs::path counts_path(const GroupPlace& place, uint32_t part, uint32_t parts) {
  return place.folder / "counts" / fmt::format("{:04}-of-{:04}", part, parts);
}
fs::path exempt_path(const GroupPlace& place) { return place.folder / "exempt"; }

/// The hits of the documents that earlier steps have left, by their numbers among all, and the words of these alone.
FileHits read_left(const GroupPlace& place, uint32_t file, uint64_t index) {
  FileHits hits = read_hits(hits_path(place, file), index);
  if (!place.left) return hits;
  const std::vector<bool> left = place.left(file);
  COPPICE_CHECK(left.size() == hits.words.size(), "a file's notes and its documents");
  std::erase_if(hits.hits, [&](const DocumentHit& hit) { return hit.document >= left.size() || !left[hit.document]; });
  size_t document = 0;
  std::erase_if(hits.words, [&](uint32_t) { return !left[document++]; });
  return hits;
}

/// The hits of one document after the other.
template <class Visit>
void for_each_document_hits(const std::vector<DocumentHit>& hits, Visit visit) {
  for (size_t begin = 0; begin < hits.size();) {
    size_t end = begin;
    while (end < hits.size() && hits[end].document == hits[begin].document) ++end;
    visit(std::span(hits).subspan(begin, end - begin));
    begin = end;
  }
}

class HitNotes : public GroupNotes {
 public:
  HitNotes(const NgramIndex& index, fs::path path) : index_(index), search_(index), path_(std::move(path)) {}

  void add(const Document& document) override {
    ngrams_.clear();
    for (const NgramHit& hit : search_.find(document.text)) ngrams_.push_back(hit.ngram);
    std::ranges::sort(ngrams_);
    for (size_t begin = 0; begin < ngrams_.size();) {
      size_t end = begin;
      while (end < ngrams_.size() && ngrams_[end] == ngrams_[begin]) ++end;
      hits_.hits.push_back(
          {static_cast<uint32_t>(hits_.words.size()), ngrams_[begin], static_cast<uint32_t>(end - begin)});
      begin = end;
    }
    hits_.words.push_back(static_cast<uint32_t>(search_.num_words()));  // of 64 MB of text at most
  }
  void commit() override {
    make_folder(path_.parent_path());
    write_hits(path_, index_.hash(), hits_);
  }

 private:
  const NgramIndex& index_;
  NgramSearch search_;
  fs::path path_;
  FileHits hits_;
  std::vector<uint32_t> ngrams_;
};

class HitDecisions : public GroupDecisions {
 public:
  HitDecisions(const NgramIndex& index, Verdict verdict, FileHits hits, bool cuts)
      : index_(index), search_(index), verdict_(std::move(verdict)), hits_(std::move(hits)), cuts_(cuts) {}

  bool look(Document& document, std::span<double> values, std::string& details) override {
    const std::span<const DocumentHit> hits = next_hits();
    const std::vector<HeldItem> held = verdict_.damning(hits);
    values[0] = cuts_ ? 0 : static_cast<double>(held.size());
    if (held.empty()) return false;
    const IndexedItem& first = index_.items()[held.front().item];
    details = fmt::format("\"benchmark\":{},\"item\":{},\"ngram\":{}", quoted(index_.benchmarks()[first.benchmark]),
                          first.number, quoted(index_.text(held.front().ngram)));
    return cuts_ && cut(document, hits, held, values);
  }
  bool goes() override { return !verdict_.damning(next_hits()).empty(); }

 private:
  /// Of the next document.
  std::span<const DocumentHit> next_hits() {
    const size_t begin = next_;
    while (next_ < hits_.hits.size() && hits_.hits[next_].document == document_) ++next_;
    ++document_;
    return std::span(hits_.hits).subspan(begin, next_ - begin);
  }

  static std::string quoted(std::string_view text) {
    return Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
  }

  /// Every n-gram of the items that it holds, if not exempt.
  bool cut(Document& document, std::span<const DocumentHit> hits, const std::vector<HeldItem>& held,
           std::span<double> values) {
    uint64_t cuts = 0;
    document.text = without_windows(document.text, search_, verdict_.cut_ngrams(hits, held), cuts);
    set_metadata(document, "benchmark_cuts", cuts);
    values[0] = document.text.find_first_not_of(" \t\r\n") == std::string::npos ? 1 : 0;
    return true;
  }

  const NgramIndex& index_;
  NgramSearch search_;
  Verdict verdict_;
  FileHits hits_;
  bool cuts_;
  size_t next_ = 0;        // of hits_
  uint32_t document_ = 0;  // of the file
};

StepForecast DecontaminateStep::forecast(double text_bytes) const {
  StepForecast forecast{.lines = {fmt::format("{} n-grams of {} items take {} of memory beside what sorting takes",
                                              format_count(index().size()), format_count(index().items().size()),
                                              format_bytes(static_cast<double>(index().memory_bytes())))}};
  if (std::string warning = few_words_warning(text_bytes / kWordBytes); !warning.empty())
    forecast.warnings.push_back("about " + warning);
  return forecast;
}

std::unique_ptr<GroupNotes> DecontaminateStep::note(const GroupPlace& place, uint32_t file) const {
  return std::make_unique<HitNotes>(index(), hits_path(place, file));
}

/// Adds up the counts of a range of n-grams.
void DecontaminateStep::reduce(const GroupPlace& place, uint32_t part) const {
  const uint64_t parts = num_parts(place), size = index().size();
  const uint64_t begin = size * part / parts, end = size * (part + 1) / parts;
  std::vector<uint64_t> counts(end - begin);
  for (uint32_t file = 0; file < place.files.size(); ++file)
    for (const DocumentHit& hit : read_left(place, file, index().hash()).hits)
      if (hit.ngram >= begin && hit.ngram < end) counts[hit.ngram - begin] += by_document_ ? 1 : hit.times;
  std::vector<NgramCount> found;
  for (uint64_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0) found.push_back({begin + i, counts[i]});
  make_folder(place.folder / "counts");
  write_counts(counts_path(place, part, num_parts(place)), index().hash(), found);
}

void DecontaminateStep::settle(const GroupPlace& place) const {
  std::vector<NgramCount> counts, exempt;
  const uint32_t parts = num_parts(place);
  for (uint32_t part = 0; part < parts; ++part)
    std::ranges::copy(read_counts(counts_path(place, part, parts), index().hash()), std::back_inserter(counts));
  const uint64_t common = options_.common_at_least > 0 ? static_cast<uint64_t>(options_.common_at_least)
                                                       : std::numeric_limits<uint64_t>::max();
  std::ranges::copy_if(counts, std::back_inserter(exempt),
                       [&](const NgramCount& count) { return count.count >= common; });
  const Verdict judge = verdict(exempt);
  ContaminationReport report(index(), counts, judge);
  CorpusSize size;
  std::vector<bool> stands(index().size());  // in what is left, for the overlap
  for (uint32_t file = 0; file < place.files.size(); ++file) {
    const FileHits hits = read_left(place, file, index().hash());
    size.documents += hits.words.size();
    size.words = std::accumulate(hits.words.begin(), hits.words.end(), size.words);
    for_each_document_hits(hits.hits, [&](std::span<const DocumentHit> document) {
      report.add(place.source_names[place.sources[file]], judge.held(document));
      const std::vector<HeldItem> damning = judge.damning(document);
      if (!damning.empty() && !cuts_) return;
      const std::unordered_set<uint32_t> cut = judge.cut_ngrams(document, damning);
      for (const DocumentHit& hit : document)
        if (!cut.contains(hit.ngram)) stands[hit.ngram] = true;
    });
  }
  if (const std::string warning = few_words_warning(static_cast<double>(size.words)); !warning.empty())
    log_warning("decontaminate: " + warning);
  write_file_atomically(place.folder / "contamination.json", report.json(size).dump(1) + "\n");
  write_overlap(place.folder / "overlap.jsonl.zst", index(), stands, judge);
  write_counts(exempt_path(place), index().hash(), exempt);  // last: what decide() needs
}

std::unique_ptr<GroupDecisions> DecontaminateStep::decide(const GroupPlace& place, uint32_t file) const {
  return std::make_unique<HitDecisions>(index(), verdict(read_counts(exempt_path(place), index().hash())),
                                        read_hits(hits_path(place, file), index().hash()), cuts_);
}

std::shared_ptr<const Step> read_decontaminate(OptionTable& table) {
  DecontaminateOptions options;
  table.read(options);
  return std::make_shared<DecontaminateStep>(table, options);
}

}  // namespace

extern const StepKind kDecontaminateStep;
const StepKind kDecontaminateStep = {
    .kind = "decontaminate",
    .about = "removes documents that hold items of benchmarks: n-grams of 4 to 13 words, common phrases exempt",
    .example = "coppice data decontaminate documents/ -o clean/ --benchmarks 'benchmarks/*.jsonl'",
    .options = step_options<DecontaminateOptions>,
    .read = read_decontaminate,
};

}  // namespace coppice
