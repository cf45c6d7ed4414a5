// coppice eval: models scored on tasks as lm-evaluation-harness scores them (src/tasks, src/evaluate).
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>
#include <system_error>

#include "recipes/commands/open_model.h"
#include "recipes/commands/placement_flags.h"
#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/evaluate/answer_task.h"
#include "src/tasks/task_results.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  std::vector<std::string> models, tasks, fewshot;
  std::optional<int64_t> num_fewshot;
  int64_t limit = 0, max_length = 0, batch_tokens = 8192;
  bool add_bos = false;
  std::string json, log_samples;
  PlacementOptions placement;
};

/// NAME=FILE of --fewshot: the file goes to the task of this name.
void set_fewshot(std::vector<TaskFile>& files, const std::string& argument) {
  const size_t equals = argument.find('=');
  const std::string name = argument.substr(0, equals);
  const auto file = std::ranges::find(files, name, [](const TaskFile& one) { return one.definition.name; });
  if (equals == std::string::npos || file == files.end())
    throw UserError::recipe("--fewshot", fmt::format("got '{}', expected NAME=FILE with the name of one of the tasks",
                                                     printable(argument)));
  file->fewshot = argument.substr(equals + 1);
}

/// Two tasks, or a task and a group, of one name would be one row of the results.
void check_names(const std::vector<PreparedTask>& own, std::set<std::string>& names) {
  std::set<std::string> groups;
  for (const PreparedTask& task : own) groups.insert(task.definition.groups.begin(), task.definition.groups.end());
  const auto add = [&](const std::string& name) {
    if (!names.insert(name).second)
      throw UserError::recipe("--tasks", fmt::format("two tasks named '{}'", printable(name)));
  };
  for (const std::string& name : groups) add(name);
  for (const PreparedTask& task : own) add(task.definition.name);
}

void log_task_file(const TaskFile& file, const std::vector<PreparedTask>& own) {
  size_t documents = 0;
  int64_t documents_in_file = 0;
  for (const PreparedTask& task : own) {
    documents += task.documents.size();
    documents_in_file += task.documents_in_file;
  }
  const int64_t examples = own[0].definition.num_fewshot;
  log_info(fmt::format("{}: {}{}{}, {} of {} documents{}", printable(file.data.string()),
                       file.recognised ? "looks like " : "", printable(file.definition.name),
                       own.size() > 1 ? fmt::format(", {} subtasks", own.size()) : "", documents, documents_in_file,
                       examples > 0 ? fmt::format(", {} examples", examples) : ""));
}

std::vector<PreparedTask> prepare_tasks(const Flags& flags) {
  std::vector<TaskFile> files;
  for (const std::string& argument : flags.tasks) files.push_back(open_task_file(argument));
  for (const std::string& argument : flags.fewshot) set_fewshot(files, argument);
  std::vector<PreparedTask> tasks;
  std::set<std::string> names;
  for (const TaskFile& file : files) {
    std::vector<PreparedTask> own = prepare_subtasks(file, {.num_fewshot = flags.num_fewshot, .limit = flags.limit});
    check_names(own, names);
    log_task_file(file, own);
    std::ranges::move(own, std::back_inserter(tasks));
  }
  return tasks;
}

/// Gets the share of a model's tokens that are done, before each pass.
using ModelProgress = std::function<void(double share, const PreparedTask& task)>;

ScoredModel score_model(const std::string& path, const Placement& on, const std::vector<PreparedTask>& tasks,
                        const Flags& flags, std::string& samples, const ModelProgress& progress) {
  auto [loaded, tokenizer] = open_model(path, on);
  int64_t& max_length = loaded.model.config.max_position_embeddings;
  if (flags.max_length > 0) max_length = std::min(max_length, flags.max_length);
  std::vector<EncodedTask> encoded;
  std::vector<uint64_t> tokens;
  for (const PreparedTask& task : tasks) {
    encoded.push_back(encode_task(tokenizer, task, flags.add_bos || tokenizer.adds_bos(), max_length));
    tokens.push_back(num_tokens(task, encoded.back(), max_length));
  }
  const auto total = static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), uint64_t{0}));
  ScoredModel scored{.name = path,
                     .max_length = max_length,
                     .tasks = {},
                     .device = device_name(on.device),
                     .dtype = dtype_name(on.compute)};
  uint64_t tokens_done = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    const auto answers =
        answer_task(loaded.model, tokenizer, tasks[t], encoded[t], flags.batch_tokens,
                    [&](uint64_t own) { progress(static_cast<double>(tokens_done + own) / total, tasks[t]); });
    tokens_done += tokens[t];
    scored.tasks.push_back({&tasks[t], score_task(tasks[t], answers, !flags.log_samples.empty())});
    for (Json& sample : scored.tasks.back().score.samples) {
      sample["model"] = path;
      samples += sample.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    }
    scored.tasks.back().score.samples.clear();
  }
  return scored;
}

/// Every model on every task. The time left is judged by documents, for each model by the tokens it has read of its
/// own: the models still to come are taken to be as slow as those before.
std::vector<ScoredModel> score_models(const Flags& flags, const Placement& on, const std::vector<PreparedTask>& tasks,
                                      std::string& samples) {
  uint64_t documents = 0;
  for (const PreparedTask& task : tasks) documents += task.documents.size();
  Progress progress("eval", documents * flags.models.size(), "document");
  std::vector<ScoredModel> models;
  for (const std::string& path : flags.models) {
    const uint64_t before = models.size() * documents;
    models.push_back(score_model(path, on, tasks, flags, samples, [&](double share, const PreparedTask& task) {
      const auto own = static_cast<uint64_t>(share * static_cast<double>(documents));
      progress.update(before + own, {{"", path}, {"", task.definition.name}});
    }));
  }
  progress.finish(fmt::format("{} documents scored, {} model{}", documents * flags.models.size(), flags.models.size(),
                              flags.models.size() == 1 ? "" : "s"));
  return models;
}

void evaluate(const Flags& flags) {
  for (const std::string& file : {flags.json, flags.log_samples}) {
    if (file.empty() || file == "-") continue;
    const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
    make_folder(folder);
    check_writable(folder);
  }
  const std::vector<PreparedTask> tasks = prepare_tasks(flags);
  std::error_code error;
  for (const std::string& path : flags.models)  // before the first is scored
    if (!std::filesystem::exists(path, error))
      throw UserError::bad_file(path, fmt::format("no such model{}; expected a stage folder of a run, a Hugging Face "
                                                  "folder or a GGUF file",
                                                  searched_from(path)));
  const Placement on = placed(flags.placement);
  start_torch(0);
  std::string samples;
  const std::vector<ScoredModel> models = score_models(flags, on, tasks, samples);
  if (!flags.log_samples.empty()) write_file_atomically(flags.log_samples, samples);
  Json json = Json::array();
  for (const ScoredModel& model : models) json.push_back(results_json(model));
  const std::string text =
      (models.size() == 1 ? json[0] : json).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  if (!flags.json.empty() && flags.json != "-") write_file_atomically(flags.json, text);
  if (flags.json == "-") return fmt::print("{}", text);
  fmt::print("{}", results_table(models));
  if (const std::string depths = depth_table(models); !depths.empty()) fmt::print("\n{}", depths);
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb =
      add_verb(app, "eval", "score models on tasks as lm-evaluation-harness does",
               "coppice eval runs/demo/dense runs/demo/long --tasks hellaswag=validation.jsonl ppl=book.txt");
  verb->add_option("models", flags->models, "stage folders of runs, Hugging Face folders or GGUF files")->required();
  verb->add_option("--tasks", flags->tasks,
                   "FILE.jsonl, NAME=FILE.jsonl, a harness task FILE.yaml, or FILE.yaml=FILE.jsonl; one or more")
      ->required();
  verb->add_option("--fewshot", flags->fewshot, "NAME=FILE.jsonl: where a task's examples come from");
  verb->add_option("--num-fewshot", flags->num_fewshot, "examples before each question; default the task's own")
      ->check(CLI::Range(int64_t{0}, int64_t{1024}));
  verb->add_option("--limit", flags->limit, "documents of each task (MMLU: of each subject) at most; 0 = all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  verb->add_option("--max-length", flags->max_length, "tokens that a model reads at once at most; 0 = all it knows")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  verb->add_flag("--add-bos-token", flags->add_bos, "begin every context with BOS, whatever the tokenizer says");
  verb->add_option("--batch-tokens", flags->batch_tokens, "tokens of one forward pass (memory)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  verb->add_option("--json", flags->json, "results as lm-evaluation-harness writes them, into a file or - for stdout");
  add_placement(verb, flags->placement);
  verb->add_option("--log-samples", flags->log_samples, "a JSON line for every document, into this file");
  verb->callback([flags, &action] { action = [flags] { evaluate(*flags); }; });
}

}  // namespace coppice
