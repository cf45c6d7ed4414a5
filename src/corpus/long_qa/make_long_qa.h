// Questions about long texts out of documents (data.md's "synthetic long Q&A"): contexts of a few lengths, one question
// each, kinds in equal shares and answers spread evenly over ten depths. Held-out documents give task files that
// `coppice eval` reads, all others give documents to train on; no context mixes the two.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/long_qa/questions.h"
#include "src/text/documents.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// Words a question anew from the passage around its answer; nothing where it cannot.
using WordQuestion = std::function<std::optional<std::string>(std::string_view passage, const Question& question)>;

struct LongQaOptions {
  std::vector<std::filesystem::path> inputs;  // files and folders that for_each_document() reads
  std::filesystem::path output;               // a folder
  CorpusOptions reading;
  std::vector<int64_t> targets = {8192, 16384, 32768};  // tokens of a text with its question and answer
  double heldout_share = 0.1;                           // of the documents, by id hash
  int64_t max_items = 500;                              // of each task file
  uint64_t seed = 1;
  int threads = 1;
  WordQuestion
      word_question;  // of facts and needles, which a passage alone can answer; empty: all as wordings.h has it
};

/// How often each kind was asked at each depth.
using QuestionCounts = std::array<std::array<uint64_t, kNumDepths>, kNumKinds>;

struct LongQaReport {
  struct Length {
    uint64_t target = 0, contexts = 0;
    QuestionCounts trained = {}, held_out = {};
    std::filesystem::path task;  // empty without an item
  };
  uint64_t documents = 0, long_words = 0;  // read; left out for a word of more than 4 kB
  std::map<std::string, uint64_t> closed;  // documents that were passed over, by the source that is closed to `long`
  std::vector<Length> lengths;
  FaultCounts faults = {};  // candidates that went, by reason
  std::filesystem::path file;
};
uint64_t num_questions(const QuestionCounts& counts);

/// Writes into the folder
///   long-qa.jsonl.zst         documents of source "long-qa": context, question, answer; metadata kind, depth, span
///                             (bytes of the answer in the text, which it has once before the question), target,
///                             documents, stages ["long"], license (all that came in, joined by AND; "" where one has
///                             none)
///   sources.json              {"sources": [{"name": "long-qa", "license", "stages": ["long"], "of": [{"name",
///                             "license", "stages"}]}]}: a recipe that reads the documents obeys it (corpus_rights)
///   tasks/long_qa_8192.yaml   a task of multiple choice (wrong choices from the same context) whose subtasks are the
///   tasks/long_qa_8192.jsonl  depths: `coppice eval MODEL --tasks OUT/tasks/long_qa_8192.yaml`
/// Documents of a corpus whose source is closed to the stage `long` are passed over, counted and said. The same bytes
/// for every number of threads. UserError::recipe when there is not a single question to train on, or no other
/// document; UserError::bad_file as for_each_document(). Stopped on a signal; nothing is written then.
LongQaReport make_long_qa(const LongQaOptions& options, const Tokenizer& tokenizer);

}  // namespace coppice
