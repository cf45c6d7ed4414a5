#include "src/tasks/task_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "src/base/errors.h"
#include "src/base/input_file.h"
#include "src/tasks/known_tasks.h"
#include "src/tasks/task_yaml.h"
#include "src/text/documents.h"
#include "src/text/file_endings.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxLineBytes = uint64_t{1} << 20, kMaxTextBytes = uint64_t{2} << 30;

const FileEnding* lines_ending(const fs::path& file) {
  const FileEnding* ending = ending_of(file);
  return ending != nullptr && ending->kind == FileEnding::Kind::lines ? ending : nullptr;
}

const FileEnding& task_ending_of(const fs::path& file) {
  if (const FileEnding* ending = lines_ending(file)) return *ending;
  throw UserError::bad_file(file.string(),
                            "expected a task file ending in .jsonl or .ndjson, or these with .gz or .zst behind them");
}

bool is_yaml(const fs::path& file) { return file.extension() == ".yaml" || file.extension() == ".yml"; }

void check_exists(const fs::path& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error))
    throw UserError::bad_file(
        file.string(),
        fmt::format("no such task file{} (coppice data tasks makes some out of a recipe's held-out documents)",
                    searched_from(file)));
}

/// Calls `visit` with each object until it says false.
void for_each_line(const fs::path& file, const std::function<bool(TaskLine&&)>& visit) {
  check_exists(file);
  LineReader lines(file, task_ending_of(file).coding, kMaxLineBytes);
  uint64_t bytes = 0;
  for (std::string_view line; lines.next(line);) {
    if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
    TaskLine one{{}, fmt::format("{}:{}", file.string(), lines.line_number())};
    if ((bytes += line.size()) > kMaxTextBytes)
      throw UserError::bad_file(one.where, "more than 2 GiB of task text; give a part of it");
    one.document = parse_json(line, one.where);
    if (!one.document.is_object()) throw UserError::bad_file(one.where, "expected one JSON object on the line");
    if (!visit(std::move(one))) return;
  }
}

TaskFile known_file(std::string_view name, const fs::path& file) {
  return {.definition = known_task(name), .data = file, .fewshot = {}, .corpus = name == kTextTask};
}

TaskFile recognise(const fs::path& file) {
  std::error_code error;
  const FileEnding* ending = ending_of(file);
  if (fs::is_directory(file, error) || (ending != nullptr && ending->kind == FileEnding::Kind::text))
    return known_file(kTextTask, file);
  std::optional<TaskLine> first;
  for_each_line(file, [&](TaskLine&& line) {
    first = std::move(line);
    return false;
  });
  if (!first) throw UserError::bad_file(file.string(), "holds no item");
  const std::string name = recognised_task(first->document, file.filename().string());
  if (name.empty())
    throw UserError::bad_file(first->where,
                              fmt::format("has the fields of no known task; say which it is, NAME={} with NAME one of "
                                          "{}, or give its task file (.yaml)",
                                          file.string(), fmt::join(known_task_names(), ", ")));
  if (name == kChoicesTask) return choices_file(file);
  TaskFile task = known_file(name, file);
  task.recognised = true;
  return task;
}

/// A file that dataset_kwargs.data_files names: from the working folder, as datasets looks for it, or beside the YAML.
fs::path find_data(const fs::path& yaml, const Json& named, const std::string& split) {
  const Json& file = named.is_array() && named.size() == 1 ? named[0] : named;
  if (!file.is_string())
    throw UserError::bad_file(
        yaml.string(),
        fmt::format("dataset_kwargs.data_files: expected one file for the split '{}'", printable(split)));
  const fs::path path = file.get<std::string>();
  std::error_code error;
  return path.is_absolute() || fs::exists(path, error) ? path : yaml.parent_path() / path;
}

TaskFile open_yaml(const fs::path& yaml, const fs::path& data) {
  const Json config = read_task_yaml(yaml);
  TaskFile task{.definition = read_definition(config, yaml.stem().string(), yaml.string()), .data = data};
  const Json kwargs = config.value("dataset_kwargs", Json::object());
  const Json files = kwargs.is_object() ? kwargs.value("data_files", Json()) : Json();
  const auto split_of = [&](std::initializer_list<const char*> keys) {
    for (const char* key : keys)
      if (config.contains(key) && config[key].is_string()) return config[key].get<std::string>();
    return std::string("train");
  };
  const auto find = [&](const std::string& split) {
    if (files.is_string() && split == "train") return find_data(yaml, files, split);
    return files.is_object() && files.contains(split) ? find_data(yaml, files[split], split) : fs::path();
  };
  if (task.data.empty()) task.data = find(split_of({"test_split", "validation_split"}));
  if (task.data.empty())
    throw UserError::bad_file(yaml.string(),
                              fmt::format("names no data file for its split '{}'; give one: {}=FILE.jsonl",
                                          printable(split_of({"test_split", "validation_split"})), yaml.string()));
  task.fewshot = find(split_of({"fewshot_split", "training_split", "validation_split", "test_split"}));
  return task;
}

}  // namespace

std::string task_name(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.substr(0, name.size() - task_ending_of(file).name.size());
}

TaskFile open_task_file(const std::string& argument) {
  std::error_code error;
  const size_t equals = fs::exists(argument, error) ? std::string::npos : argument.find('=');
  if (equals == std::string::npos) {
    if (is_yaml(argument)) return open_yaml(argument, {});
    return recognise(argument);
  }
  const std::string name = argument.substr(0, equals), file = argument.substr(equals + 1);
  if (is_yaml(name)) return open_yaml(name, file);
  if (!is_known_task(name))
    throw UserError::recipe("--tasks", fmt::format("'{}' is no task that coppice knows: {}, or a task file (.yaml)",
                                                   printable(name), fmt::join(known_task_names(), ", ")));
  return known_file(name, file);
}

TaskFile choices_file(const fs::path& file) {
  TaskFile task = known_file(kChoicesTask, file);
  task.definition.name = task.definition.alias = task_name(file);
  return task;
}

std::vector<TaskLine> read_task_lines(const fs::path& file) {
  std::vector<TaskLine> lines;
  for_each_line(file, [&](TaskLine&& line) {
    lines.push_back(std::move(line));
    return true;
  });
  if (lines.empty()) throw UserError::bad_file(file.string(), "holds no item");
  return lines;
}

std::vector<TaskLine> read_text_lines(const fs::path& corpus) {
  std::vector<TaskLine> lines;
  const CorpusReport report = for_each_document(corpus, [&](Document&& document) {
    lines.push_back({{{"id", document.id}, {"text", document.text}}, document.id});
  });
  log_corpus_report(corpus, report, {});
  return lines;
}

}  // namespace coppice
