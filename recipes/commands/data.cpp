// coppice data: documents and tokens.
#include <fmt/format.h>

#include <memory>

#include "recipes/commands/verbs.h"
#include "recipes/stages/prepare_data.h"
#include "src/base/signals.h"
#include "src/data/make_tasks.h"
#include "src/text/steps/run_step.h"
#include "src/text/steps/step_table.h"

namespace coppice {
namespace {

void add_data_tokenize(CLI::App& data, Action& action) {
  const auto flags = std::make_shared<RecipeFlags>();
  CLI::App* tokenize = add_verb(data, "tokenize", "only the data of a recipe: tokenizer, token shards, held-out split",
                                "coppice data tokenize recipes/demo.toml");
  flags->add(*tokenize);
  flags->add_out(*tokenize);
  tokenize->callback([flags, &action] { action = [flags] { tokenize_recipe(flags->parsed()); }; });
}

void add_data_tasks(CLI::App& data, Action& action) {
  struct Flags : RecipeFlags {
    std::string folder;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* tasks = add_verb(data, "tasks",
                             "multiple-choice items out of the documents that a recipe holds out: a task file each for "
                             "continuation and word",
                             "coppice data tasks recipes/demo.toml --output data/tasks");
  flags->add(*tasks);
  tasks->add_option("--output", flags->folder, "folder to write")->required();
  tasks->callback([flags, &action] {
    action = [flags] {
      const RunRequest request = flags->parsed();
      const Recipe recipe = load_recipe(request.recipe_file, request.overrides, request.unset);
      const SurveyOptions corpus = survey_options(recipe, /*with_sample=*/false);
      for (const MadeTask& task : make_tasks(corpus.domains, corpus.heldout_share, flags->folder))
        fmt::print("{}: {} items\n", task.file.string(), task.items);
    };
  });
}

/// One verb a row of the table of steps; then one line on stdout: `1189 documents, 1253004 bytes of text`.
void add_data_step(CLI::App& data, const StepRow& row, Action& action) {
  const auto options = std::make_shared<StepOptions>();
  CLI::App* step = add_verb(data, row.name, row.about, row.example);
  step->add_option("--source", options->source, "where the text comes from; opens every document id")->required();
  step->add_option("--license", options->license, "licence stored with every document");
  step->add_option("--output", options->output,
                   "file to write (.jsonl.zst), or a folder: a file for each input, those that are there are kept")
      ->required();
  step->add_option("--max-bytes", options->max_bytes, "text bytes at most, of one file; 0 = everything");
  step->add_option("paths", options->inputs, "files and folders")->required();
  step->callback([options, &row, &action] {
    action = [options, &row] {
      install_signal_handlers();
      const StepReport report = run_step(row, *options);
      fmt::print("{} documents, {} bytes of text\n", report.documents, report.text_bytes);
    };
  });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "documents and tokens");
  data->require_subcommand(1);
  add_data_tokenize(*data, action);
  add_data_tasks(*data, action);
  for (const StepRow& row : step_table()) add_data_step(*data, row, action);
}

}  // namespace coppice
