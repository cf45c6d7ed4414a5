// The verbs of the program: each adds itself to the command line with its flags, and says what it does when it is
// chosen.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "recipes/run/run_recipe.h"

namespace coppice {

using Action = std::function<void()>;  // of the chosen verb

void add_run(CLI::App& app, Action& action);
void add_rewind(CLI::App& app, Action& action);
void add_ablate(CLI::App& app, Action& action);
void add_plan(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_compress(CLI::App& app, Action& action);
void add_config(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_diff(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_import(CLI::App& app, Action& action);
void add_export(CLI::App& app, Action& action);
void add_labels(CLI::App& app, Action& action);
void add_data(CLI::App& app, Action& action);
// Below add_data.
void add_data_train_classifier(CLI::App& data, Action& action);
void add_data_tune(CLI::App& data, Action& action);
void add_data_sample(CLI::App& data, Action& action);
void add_data_stats(CLI::App& data, Action& action);
void add_data_diff(CLI::App& data, Action& action);
void add_data_convert(CLI::App& data, Action& action);
void add_data_domains(CLI::App& data, Action& action);
void add_data_overlap(CLI::App& data, Action& action);
void add_data_long_qa(CLI::App& data, Action& action);

/// A verb below `parent`, with an example in its help.
CLI::App* add_verb(CLI::App& parent, const char* name, const char* about, const std::string& example);

/// Flags of every verb that reads a recipe.
struct RecipeFlags {
  RunRequest request;
  std::vector<std::string> set;

  void add(CLI::App& verb);
  void add_out(CLI::App& verb, const std::string& about = "run folder; default runs/<recipe name>");
  /// The request with --set read; UserError::recipe for one that is none.
  RunRequest parsed() const;
};

/// What was printed is out, before a warning or the end; a failure is said once and lost in stdio, so that every flush
/// is checked. IoError.
void flush_result();

}  // namespace coppice
