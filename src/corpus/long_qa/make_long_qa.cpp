// Documents are read in batches and contexts asked in waves, both of a fixed size: what threads do within one depends
// on its own document or context alone, and what depends on others (joining, the choice of kinds and depths) is done in
// order.
#include "src/corpus/long_qa/make_long_qa.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <thread>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/corpus/long_qa/contexts.h"
#include "src/corpus/long_qa/fit_question.h"
#include "src/corpus/run/corpus_rights.h"
#include "src/corpus/sources/source.h"
#include "src/text/ascii_case.h"
#include "src/text/document_metadata.h"
#include "src/text/document_writer.h"

namespace coppice {
namespace {

constexpr size_t kBatchDocuments = 256, kWaveContexts = 64;
constexpr size_t kPassageBytes = 500;
constexpr const char* kSource = "long-qa";
constexpr size_t kMaxLineBytes = size_t{1} << 20;  // that read_task_lines() takes

/// Calls work(i) for i below `count` in `threads` threads, this one among them.
template <class Work>
void for_each_index(int threads, size_t count, const Work& work) {
  std::atomic<size_t> next = 0;
  const auto run = [&] {
    for (size_t i; (i = next++) < count;) work(i);
  };
  std::vector<std::jthread> others;
  for (int thread = 1; thread < threads && static_cast<size_t>(thread) < count; ++thread) others.emplace_back(run);
  run();
}

/// The licence of a text made of several: all hold. "" where one is not known.
std::string joined_license(const std::vector<std::string>& licenses) {
  if (std::ranges::find(licenses, "") != licenses.end()) return "";
  if (licenses.size() == 1) return licenses[0];
  std::string all;
  for (const std::string& license : licenses)
    all += fmt::format(fmt::runtime(license.find(" OR ") == std::string::npos ? "{}{}" : "{}({})"),
                       all.empty() ? "" : " AND ", license);
  return all;
}

constexpr const char* kStage = "long";  // that the documents are for

/// Of the inputs that lie in a corpus: whose documents they are, and which of them may be asked about.
class InputRights {
 public:
  /// The documents of a file are those of one source, and files of a source lie together.
  bool admit(const std::filesystem::path& file, LongQaReport& report) {
    if (file != file_) {
      file_ = file;
      const auto [known, is_new] = of_folder_.try_emplace(file.parent_path());
      if (is_new) known->second = corpus_rights(file);
      rights_ = &known->second;
    }
    if (const SourceRights* closed = closed_to(*rights_, kStage)) {
      ++report.closed[closed->source];
      closed_.try_emplace(closed->source, *closed);
      return false;
    }
    if (rights_->empty()) licenses_.insert("unknown");
    for (const SourceRights& source : *rights_)
      if (used_.try_emplace(source.source, source).second)
        licenses_.insert(source.license.empty() ? "unknown" : source.license);
    return true;
  }

  void say(const LongQaReport& report) const {
    for (const auto& [name, count] : report.closed)
      log_warning(fmt::format("{} documents are of {}: passed over, for what is made is for the stage '{}'", count,
                              closed_text(closed_.at(name)), kStage));
    if (report.documents == 0 && !closed_.empty())
      throw UserError::recipe("inputs",
                              fmt::format("every document is of a source that is closed to the stage '{}'", kStage));
  }

  /// sources.json.
  std::string told() const {
    std::vector<SourceRights> used;
    for (const auto& [name, source] : used_) used.push_back(source);
    const bool unknown = licenses_.contains("unknown");
    const Json made = {{"name", kSource},
                       {"license", unknown ? "unknown" : joined_license({licenses_.begin(), licenses_.end()})},
                       {"stages", Json::array({kStage})},
                       {"of", rights_json(used)}};
    return seal({{"format", kCorpusSourcesFormat}, {"version", 1}, {"sources", Json::array({made})}});
  }

 private:
  std::filesystem::path file_;
  std::map<std::filesystem::path, std::vector<SourceRights>> of_folder_;
  const std::vector<SourceRights>* rights_ = nullptr;  // of file_
  std::map<std::string, SourceRights> used_, closed_;  // by source
  std::set<std::string> licenses_;
};

Document training_document(const QaContext& context, const Question& question, FittedQuestion&& fitted) {
  Document document{.id = context.id,
                    .source = kSource,
                    .text = fmt::format("{}{} {}", fitted.context, question_tail(question), question.answer),
                    .license = joined_license(context.licenses)};
  const auto set = [&](const char* name, const Json& value) { set_metadata(document, name, value); };
  set("kind", kQuestionKinds[static_cast<size_t>(question.kind)]);
  set("depth", std::floor(fitted.depth * 1000) / 1000);
  set("span", {fitted.answer.begin, fitted.answer.end});
  set("target", context.target);
  set("documents", context.documents);
  set("stages", {kStage});
  return document;
}

/// The right choice stands at a place that the id decides.
std::string task_line(const QaContext& context, const Question& question, const FittedQuestion& fitted) {
  std::vector<std::string> choices = question.wrong;
  const size_t answer = document_hash(context.id) % (choices.size() + 1);
  choices.insert(choices.begin() + static_cast<std::ptrdiff_t>(answer), question.answer);
  const auto depth = static_cast<size_t>(fitted.depth * kNumDepths);
  return Json({{"id", context.id},
               {"context", fitted.context + question_tail(question)},
               {"choices", choices},
               {"answer", answer},
               {"kind", kQuestionKinds[static_cast<size_t>(question.kind)]},
               {"depth", fmt::format("depth_{}", depth * 100 / kNumDepths)},
               {"documents", context.documents}})
             .dump() +
         "\n";
}

/// Whole words, about kPassageBytes on both sides of an answer that stands in the text.
std::string_view passage_around(std::string_view text, std::string_view answer) {
  const size_t at = text.find(answer);
  size_t begin = at - std::min(at, kPassageBytes), end = std::min(text.size(), at + answer.size() + kPassageBytes);
  if (begin > 0) begin = std::min(text.find_first_of(kAsciiBlanks, begin), at);
  if (end < text.size()) end = std::max(text.find_last_of(kAsciiBlanks, end), at + answer.size());
  return trimmed_ascii(text.substr(begin, end - begin));
}

constexpr const char* kTaskYaml =
    R"yaml(# Retrieval from texts of {0} tokens: the mean over all items is this length's, that of a subtask a depth's.
task: long_qa_{0}
dataset_path: json
dataset_kwargs:
  data_files:
    test: long_qa_{0}.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_choice: choices
doc_to_target: answer
subtask_field: depth
metric_list:
  - metric: acc
metadata:
  version: 1.0
)yaml";

class LongQaMaker {
 public:
  LongQaMaker(const LongQaOptions& options, const Tokenizer& tokenizer)
      : options_(options), tokenizer_(tokenizer), progress_("long-qa", 0, "document") {
    for (size_t t = 1; t < options.targets.size(); ++t)
      if (std::ranges::count(options.targets, options.targets[t]) > 1)
        throw UserError::recipe("--target-tokens", fmt::format("got {} twice", options.targets[t]));
    make_folder(options.output / "tasks");
    report_.file = options.output / "long-qa.jsonl.zst";
    writer_ = std::make_unique<DocumentWriter>(report_.file);
    tasks_.resize(options.targets.size());
    for (size_t t = 0; t < options.targets.size(); ++t) {
      const auto target = static_cast<uint64_t>(options.targets[t]);
      report_.lengths.push_back({.target = target});
      for (const bool held_out : {false, true})
        makers_.emplace_back(target, held_out, [this, t](QaContext&& context) { take_context(t, std::move(context)); });
    }
  }

  void add(const std::filesystem::path& file, Document&& document) {
    if (!rights_.admit(file, report_)) return;
    if (stop_requested()) throw Stopped("stopped while making questions; nothing is written");
    batch_bytes_ += document.text.size();
    batch_.push_back({.document = std::move(document)});
    if (batch_.size() == kBatchDocuments || batch_bytes_ > kMaxDocumentBytes) take_batch();
    progress_.update(++report_.documents, {});
  }

  LongQaReport finish() {
    rights_.say(report_);
    take_batch();
    ask_wave();
    uint64_t questions = 0, contexts = 0;
    for (const LongQaReport::Length& length : report_.lengths) {
      questions += num_questions(length.trained);
      contexts += length.contexts;
    }
    if (questions == 0)
      throw UserError::recipe("--target-tokens",
                              fmt::format("got {}: {} documents of {} tokens give {} contexts of such a length and no "
                                          "question to train on; give more documents, or a smaller target",
                                          fmt::join(options_.targets, ","), report_.documents, tokens_, contexts));
    for (size_t t = 0; t < tasks_.size(); ++t) write_task(report_.lengths[t], tasks_[t]);
    write_file_atomically(options_.output / "sources.json", rights_.told());
    writer_->commit();
    progress_.finish(fmt::format("{} questions about {} documents", questions, report_.documents));
    return std::move(report_);
  }

 private:
  struct Asked {
    size_t length;  // its number
    QaContext context;
    Candidates candidates = {};
    FaultCounts faults = {};
    Question* question = nullptr;  // the chosen one
    size_t depth = 0;              // it was chosen for
    FittedQuestion fitted = {};
  };

  QuestionCounts& counts_of(const Asked& asked) {
    LongQaReport::Length& length = report_.lengths[asked.length];
    return asked.context.held_out ? length.held_out : length.trained;
  }

  void take_batch() {
    for_each_index(options_.threads, batch_.size(),
                   [&](size_t i) { batch_[i] = cut_document(std::move(batch_[i].document), tokenizer_); });
    for (const CutDocument& document : batch_) {
      if (document.pieces.empty()) {
        ++report_.long_words;
        continue;
      }
      tokens_ += document.tokens;
      const bool held_out = is_heldout(document.document.id, options_.heldout_share);
      for (size_t t = 0; t < options_.targets.size(); ++t) makers_[2 * t + (held_out ? 1 : 0)].add(document);
    }
    batch_.clear();
    batch_bytes_ = 0;
  }

  void take_context(size_t length, QaContext&& context) {
    if (context.held_out &&
        num_questions(report_.lengths[length].held_out) >= static_cast<uint64_t>(options_.max_items))
      return;
    ++report_.lengths[length].contexts;
    wave_.push_back({.length = length, .context = std::move(context)});
    if (wave_.size() == kWaveContexts) ask_wave();
  }

  void ask_wave() {
    if (stop_requested()) throw Stopped("stopped while making questions; nothing is written");
    for_each_index(options_.threads, wave_.size(), [&](size_t i) {
      wave_[i].candidates = find_questions(wave_[i].context, options_.seed, wave_[i].faults);
    });
    for (Asked& asked : wave_) {
      for (size_t i = 0; i < kFaults.size(); ++i) report_.faults[i] += asked.faults[i];
      choose(asked);
      if (options_.word_question && asked.question != nullptr) word(asked);
    }
    for_each_index(options_.threads, wave_.size(), [&](size_t i) {
      if (wave_[i].question != nullptr)
        wave_[i].fitted = fit_question(wave_[i].context, *wave_[i].question, tokenizer_);
    });
    for (Asked& asked : wave_)
      if (asked.question != nullptr) keep(asked);
    wave_.clear();
  }

  /// Kind and depth that were asked least so far, as shares of what each should have; among equals the pair of both
  /// that was asked least.
  void choose(Asked& asked) {
    QuestionCounts& counts = counts_of(asked);
    if (asked.context.held_out && num_questions(counts) >= static_cast<uint64_t>(options_.max_items)) return;
    std::array<uint64_t, kNumDepths> at_depth = {};
    for (const auto& row : counts)
      for (size_t depth = 0; depth < kNumDepths; ++depth) at_depth[depth] += row[depth];
    std::pair<uint64_t, uint64_t> best{UINT64_MAX, 0};
    size_t best_kind = 0;
    for (size_t kind = 0; kind < kNumKinds; ++kind) {
      const uint64_t of_kind = std::accumulate(counts[kind].begin(), counts[kind].end(), uint64_t{0});
      for (size_t depth = 0; depth < kNumDepths; ++depth) {
        const std::pair cost{kNumKinds * of_kind + kNumDepths * at_depth[depth], counts[kind][depth]};
        if (!asked.candidates[kind][depth] || cost >= best) continue;
        best = cost;
        best_kind = kind;
        asked.depth = depth;
        asked.question = &*asked.candidates[kind][depth];
      }
    }
    if (asked.question != nullptr) ++counts[best_kind][asked.depth];
  }

  /// In the words of options.word_question, or not at all.
  void word(Asked& asked) {
    Question& question = *asked.question;
    if (question.kind != QuestionKind::fact && question.kind != QuestionKind::needle) return;
    if (stop_requested()) throw Stopped("stopped while making questions; nothing is written");
    const std::string text = with_insertions(asked.context.text, question);
    if (std::optional<std::string> words = options_.word_question(passage_around(text, question.answer), question)) {
      question.text = std::move(*words);
      question.anchors.clear();
      return;
    }
    ++report_.faults[static_cast<size_t>(Fault::unanswered)];
    --counts_of(asked)[static_cast<size_t>(question.kind)][asked.depth];
    asked.question = nullptr;
  }

  void keep(Asked& asked) {
    const Question& question = *asked.question;
    Fault fault = asked.fitted.fault;
    std::string line;
    if (fault == Fault::none && asked.context.held_out) {
      line = task_line(asked.context, question, asked.fitted);
      if (line.size() > kMaxLineBytes) fault = Fault::long_line;
    }
    auto& of_kind = counts_of(asked)[static_cast<size_t>(question.kind)];
    --of_kind[asked.depth];
    if (fault != Fault::none) {
      ++report_.faults[static_cast<size_t>(fault)];
      return;
    }
    ++of_kind[static_cast<size_t>(asked.fitted.depth * kNumDepths)];  // what it is now
    if (asked.context.held_out)
      tasks_[asked.length] += line;
    else
      writer_->write(training_document(asked.context, question, std::move(asked.fitted)));
  }

  void write_task(LongQaReport::Length& length, const std::string& lines) {
    if (lines.empty()) {
      log_warning(fmt::format(
          "the held-out documents give no item of {} tokens: no task file is written for this length", length.target));
      return;
    }
    const std::filesystem::path stem = options_.output / "tasks" / fmt::format("long_qa_{}", length.target);
    length.task = stem.string() + ".yaml";
    write_file_atomically(stem.string() + ".jsonl", lines);
    write_file_atomically(length.task, fmt::format(fmt::runtime(kTaskYaml), length.target));
  }

  const LongQaOptions& options_;
  const Tokenizer& tokenizer_;
  std::unique_ptr<DocumentWriter> writer_;
  LongQaReport report_;
  InputRights rights_;
  std::vector<ContextMaker> makers_;  // by target, to train on before held-out
  std::vector<std::string> tasks_;    // lines, by target
  std::vector<CutDocument> batch_;
  uint64_t batch_bytes_ = 0, tokens_ = 0;
  std::vector<Asked> wave_;
  Progress progress_;
};

}  // namespace

uint64_t num_questions(const QuestionCounts& counts) {
  uint64_t sum = 0;
  for (const auto& row : counts) sum = std::accumulate(row.begin(), row.end(), sum);
  return sum;
}

LongQaReport make_long_qa(const LongQaOptions& options, const Tokenizer& tokenizer) {
  check_output_apart(options.inputs, options.output);
  LongQaMaker maker(options, tokenizer);
  for (const std::filesystem::path& input : options.inputs) {
    const bool is_folder = std::filesystem::is_directory(input);
    const CorpusReport report = for_each_document(
        input, [&](Document&& document) { maker.add(is_folder ? input / *document.file : input, std::move(document)); },
        options.reading);
    log_corpus_report(input, report, options.reading);
  }
  return maker.finish();
}

}  // namespace coppice
