// coppice data: documents and tokens.
#include <memory>

#include "recipes/commands/command_extract.h"
#include "recipes/commands/command_tasks.h"
#include "recipes/commands/verbs.h"

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
      run_data_tasks(load_recipe(request.recipe_file, request.overrides, request.unset), flags->folder);
    };
  });
}

void add_data_extract(CLI::App& data, Action& action) {
  const auto options = std::make_shared<ExtractOptions>();
  CLI::App* extract =
      add_verb(data, "extract", "turn folders of text, HTML and source code into documents",
               "coppice data extract --source notes --license CC0-1.0 --output notes.jsonl.zst ~/notes");
  extract->add_option("--source", options->source, "where the text comes from; opens every document id")->required();
  extract->add_option("--license", options->license, "licence stored with every document");
  extract->add_option("--output", options->output, "file to write (.jsonl.zst)")->required();
  extract->add_option("--max-bytes", options->max_bytes, "text bytes at most; 0 = everything");
  extract->add_option("paths", options->inputs, "files and folders")->required();
  extract->callback([options, &action] { action = [options] { run_extract(*options); }; });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "documents and tokens");
  data->require_subcommand(1);
  add_data_tokenize(*data, action);
  add_data_tasks(*data, action);
  add_data_extract(*data, action);
}

}  // namespace coppice
