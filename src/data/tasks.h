// Multiple-choice tasks: JSONL (plain, gzip or zstd), one item a line.
//   {"context": "The sky is", "choices": ["blue", "loud"], "answer": 0}
// Optional: "delimiter", what stands between context and choice (default one space; "" where the choices bring their
// own), "id", and "documents", the ids of the documents that the item was made of. The context may be empty. What is
// scored and how: src/model/continuations.h, recipes/stages/score_tasks.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/tokens/tokenizer.h"

namespace coppice {

struct TaskItem {
  std::string context, delimiter = " ";
  std::vector<std::string> choices;  // at least two, none empty
  size_t answer = 0;                 // the right one
  std::vector<std::string> documents;
  std::string where;  // file:line
};

struct Task {
  std::string name;  // the file's, without its ending
  std::vector<TaskItem> items;
};

/// The task's name, by its file alone.
std::string task_name(const std::filesystem::path& file);
/// Reads a whole file. UserError::bad_file with file:line for what is missing, of another type, out of range or no
/// UTF-8, and for a file without an item.
Task read_task(const std::filesystem::path& file);

/// What the model reads, and what of it is judged.
struct EncodedChoice {
  std::vector<int64_t> context, continuation;  // neither is empty
};
/// Context and continuation are encoded together, as one text, and the context's own ids are cut off: ids = enc(context
/// + delimiter + choice)[len(enc(context)):]. White space at the context's end belongs to the continuation. An empty
/// context is BOS, or EOS where the tokenizer has no BOS. UserError::bad_file when the choice adds no token of its own.
EncodedChoice encode_choice(const Tokenizer& tokenizer, const TaskItem& item, size_t choice);

}  // namespace coppice
