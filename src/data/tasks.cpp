#include "src/data/tasks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/base/json.h"
#include "src/text/file_endings.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxLineBytes = uint64_t{1} << 20;

const FileEnding& task_ending_of(const fs::path& file) {
  if (const FileEnding* ending = ending_of(file); ending != nullptr && ending->kind == FileEnding::Kind::lines)
    return *ending;
  throw UserError::bad_file(file.string(),
                            "expected a task file ending in .jsonl or .ndjson, or these with .gz or .zst behind them");
}

std::vector<std::string> strings_at(const Json& object, const char* key, const std::string& where) {
  std::vector<std::string> strings;
  for (const Json& value : array_at(object, key, where)) {
    if (!value.is_string())
      throw UserError::bad_file(where, fmt::format("{}[{}]: expected a string", key, strings.size()));
    strings.push_back(value.get<std::string>());
  }
  return strings;
}

TaskItem item_of(std::string_view line, const std::string& where) {
  const Json json = parse_json(line, where);
  if (!json.is_object()) throw UserError::bad_file(where, "expected one JSON object on the line");
  TaskItem item{
      .context = string_at(json, "context", where), .choices = strings_at(json, "choices", where), .where = where};
  if (json.contains("delimiter")) item.delimiter = string_at(json, "delimiter", where);
  if (json.contains("documents")) item.documents = strings_at(json, "documents", where);
  if (item.choices.size() < 2)
    throw UserError::bad_file(where, fmt::format("choices: got {}, expected at least 2", item.choices.size()));
  for (size_t i = 0; i < item.choices.size(); ++i)
    if (item.choices[i].empty()) throw UserError::bad_file(where, fmt::format("choices[{}]: is empty", i));
  const uint64_t answer = unsigned_at(json, "answer", where);
  if (answer >= item.choices.size())
    throw UserError::bad_file(where, fmt::format("answer: got {}, expected the number of a choice, 0 to {}", answer,
                                                 item.choices.size() - 1));
  item.answer = static_cast<size_t>(answer);
  return item;
}

/// Where the white space at the end begins, by the same characters as Python's rstrip().
size_t end_of_words(std::string_view text) {
  constexpr std::array<std::string_view, 29> kSpaces = {
      " ",      "\t",     "\n",     "\v",     "\f",     "\r",     "\x1c",   "\x1d",   "\x1e",   "\x1f",
      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
      "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view space : kSpaces)
      if (text.ends_with(space)) {
        text.remove_suffix(space.size());
        found = true;
      }
  }
  return text.size();
}

std::vector<int64_t> widen(const std::vector<int32_t>& ids, size_t from) {
  return {ids.begin() + static_cast<std::ptrdiff_t>(from), ids.end()};
}

}  // namespace

std::string task_name(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.substr(0, name.size() - task_ending_of(file).name.size());
}

Task read_task(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error))
    throw UserError::bad_file(
        file.string(),
        fmt::format("no such task file{} (coppice data tasks makes some out of a recipe's held-out documents)",
                    searched_from(file)));
  Task task{.name = task_name(file), .items = {}};
  LineReader lines(file, task_ending_of(file).coding, kMaxLineBytes);
  for (std::string_view line; lines.next(line);)
    if (line.find_first_not_of(" \t") != std::string_view::npos)
      task.items.push_back(item_of(line, fmt::format("{}:{}", file.string(), lines.line_number())));
  if (task.items.empty()) throw UserError::bad_file(file.string(), "holds no item");
  return task;
}

EncodedChoice encode_choice(const Tokenizer& tokenizer, const TaskItem& item, size_t choice) {
  const std::string text = item.context + item.delimiter + item.choices.at(choice);
  const std::vector<int32_t> whole = tokenizer.encode(text),
                             context =
                                 tokenizer.encode(std::string_view(item.context).substr(0, end_of_words(item.context)));
  if (whole.size() <= context.size())
    throw UserError::bad_file(
        item.where,
        fmt::format("choices[{}]: adds no token of its own to the context; give the item a delimiter", choice));
  EncodedChoice encoded{.context = widen(whole, 0), .continuation = widen(whole, context.size())};
  encoded.context.resize(context.size());
  if (encoded.context.empty()) encoded.context = {tokenizer.bos_id().value_or(tokenizer.eos_id())};
  return encoded;
}

}  // namespace coppice
