// coppice data long-qa: questions about long texts, to train on and to score retrieval with.
#include <fmt/format.h>

#include <memory>
#include <numeric>
#include <optional>

#include "recipes/commands/open_model.h"
#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/base/signals.h"
#include "src/base/threads.h"
#include "src/corpus/long_qa/make_long_qa.h"
#include "src/model/generate.h"
#include "src/tensors/shape.h"
#include "src/text/ascii_case.h"

namespace coppice {
namespace {

struct Flags {
  LongQaOptions options;
  std::filesystem::path tokenizer, model;
};

/// Questions in a model's own words, greedily, where the same model, given the passage alone, returns the answer.
class QuestionWriter {
 public:
  explicit QuestionWriter(const std::filesystem::path& path) : path_(path), model_(open_model(path)) {}

  std::optional<std::string> operator()(std::string_view passage, const Question& question) const {
    const std::string words = first_line(fmt::format(
        "{}\n\nA question about this text, and its answer.\nAnswer: {}\nQuestion:", passage, question.answer));
    if (words.empty()) return std::nullopt;
    std::string answer = first_line(fmt::format("{}\n\nQuestion: {}\nAnswer:", passage, words));
    if (answer.ends_with('.') && !question.answer.ends_with('.')) answer.pop_back();
    return answer == question.answer ? std::optional(words) : std::nullopt;
  }

 private:
  /// What follows the prompt up to the end of its line, without blanks around it.
  std::string first_line(const std::string& prompt) const {
    const std::vector<int32_t> ids = prompt_ids(path_, model_.tokenizer, prompt);
    std::vector<int32_t> added;
    std::string text;
    generate(model_.loaded.model, {ids.begin(), ids.end()}, model_.tokenizer.eos_id(), {.max_new_tokens = 64},
             [&](int64_t id) {
               if (id == model_.tokenizer.eos_id()) return false;
               added.push_back(static_cast<int32_t>(id));
               text = model_.tokenizer.decode_continuation(added);
               return trimmed_ascii(text).empty() || text.find('\n', text.find_first_not_of(kAsciiBlanks)) == text.npos;
             });
    const std::string_view line = trimmed_ascii(text);
    return std::string(trimmed_ascii(line.substr(0, line.find('\n'))));
  }

  std::filesystem::path path_;
  OpenedModel model_;
};

/// A tokenizer's file, or a folder that holds one.
Tokenizer load_tokenizer(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return Tokenizer::load(path);
  if (const auto file = tokenizer_in(path)) return Tokenizer::load(*file);
  throw UserError::bad_file(path.string(), "the folder holds no tokenizer.model and no tokenizer.json");
}

void print_counts(const char* what, const QuestionCounts& counts) {
  fmt::print("{:>10}{:>8}", what, num_questions(counts));
  for (const auto& row : counts) fmt::print("{:>9}", std::accumulate(row.begin(), row.end(), uint64_t{0}));
  fmt::print("   ");
  for (size_t depth = 0; depth < kNumDepths; ++depth) {
    uint64_t sum = 0;
    for (const auto& row : counts) sum += row[depth];
    fmt::print("{:>6}", sum);
  }
  fmt::print("\n");
}

/// Questions by kind and by depth for each length, and why candidates went, on stdout.
void print_report(const LongQaReport& report) {
  fmt::print("{} documents, {} left out for a word of more than 4 kB\n", report.documents, report.long_words);
  for (const auto& [source, count] : report.closed)
    fmt::print("{} documents of '{}' passed over: the source is closed to the stage 'long'\n", count, source);
  fmt::print("\n  contexts     all");
  for (const std::string_view kind : kQuestionKinds) fmt::print("{:>9}", kind);
  fmt::print("   ");
  for (size_t depth = 0; depth < kNumDepths; ++depth) fmt::print("{:>5}%", depth * 100 / kNumDepths);
  fmt::print("\n");
  for (const LongQaReport::Length& length : report.lengths) {
    fmt::print("{} tokens: {} contexts\n", length.target, length.contexts);
    print_counts("train", length.trained);
    print_counts("held out", length.held_out);
  }
  fmt::print("\ncandidates dropped\n");
  for (size_t i = 1; i < kFaults.size(); ++i) fmt::print("{:>9}  {}\n", report.faults[i], kFaults[i]);
  fmt::print("\n{}\n", report.file.string());
  for (const LongQaReport::Length& length : report.lengths)
    if (!length.task.empty()) fmt::print("{}\n", length.task.string());
}

}  // namespace

void add_data_long_qa(CLI::App& data, Action& action) {
  const auto flags = std::make_shared<Flags>();
  LongQaOptions& options = flags->options;
  options.threads = 0;
  options.reading.text_option = "--text";
  CLI::App* verb = add_verb(
      data, "long-qa",
      "questions about long texts with answers found in them: documents to train on, and tasks for coppice eval",
      "coppice data long-qa corpora/web -o corpora/long-qa --tokenizer runs/demo/data/tokenizer --target-tokens "
      "8192,16384,32768");
  verb->add_option("inputs", options.inputs, "files and folders of documents")->required();
  verb->add_option("-o,--output", options.output, "folder to write")->required();
  verb->add_option("--tokenizer", flags->tokenizer, "tokenizer.model, tokenizer.json, or a folder that holds one")
      ->required();
  verb->add_option("--model", flags->model,
                   "a stage folder, Hugging Face folder or GGUF file that words the questions for facts and needles; "
                   "kept where it returns the answer from the passage alone");
  verb->add_option("--target-tokens", options.targets, "tokens of a text with its question and answer")
      ->delimiter(',')
      ->check(CLI::Range(1024, 131072))
      ->capture_default_str();
  verb->add_option("--text", options.reading.text_key, "the field that holds a document's text")->capture_default_str();
  verb->add_option("--heldout-share", options.heldout_share, "of the documents, by id: they give the tasks")
      ->check(CLI::Range(0.0, 0.5))
      ->capture_default_str();
  verb->add_option("--max-items", options.max_items, "of each task at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  verb->add_option("--seed", options.seed, "of what is asked and how")->capture_default_str();
  verb->add_option("--threads", options.threads, "0 = all cores; the result is the same")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  verb->callback([flags, &action] {
    action = [flags] {
      install_signal_handlers();
      flags->options.threads = choose_threads(flags->options.threads);
      const Tokenizer tokenizer = load_tokenizer(flags->tokenizer);
      if (!flags->model.empty()) {
        start_torch(0);
        const auto writer = std::make_shared<const QuestionWriter>(flags->model);
        flags->options.word_question = [writer](std::string_view passage, const Question& question) {
          return (*writer)(passage, question);
        };
      }
      print_report(make_long_qa(flags->options, tokenizer));
      flush_result();
    };
  });
}

}  // namespace coppice
