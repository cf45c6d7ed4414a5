// coppice data: documents and tokens.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "recipes/commands/verbs.h"
#include "recipes/stages/prepare_data.h"
#include "src/base/signals.h"
#include "src/corpus/extract_files.h"
#include "src/corpus/run/plan_corpus.h"
#include "src/corpus/run/run_corpus.h"
#include "src/corpus/run/step_verb.h"
#include "src/data/make_tasks.h"

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

/// One line on stdout: `1189 documents, 1253004 bytes of text`.
void add_data_extract(CLI::App& data, Action& action) {
  const auto options = std::make_shared<ExtractOptions>();
  CLI::App* extract =
      add_verb(data, "extract", "turn folders of text, HTML and source code into documents",
               "coppice data extract --source notes --license CC0-1.0 --output notes.jsonl.zst ~/notes");
  extract->footer(extract->get_footer() +
                  "\n\nPages of a crawl become the text of their articles by the step of this name, which is another "
                  "thing:\n  [[data.step]] with kind = \"extract\" in a file for coppice data run");
  extract->add_option("--source", options->source, "where the text comes from; opens every document id")->required();
  extract->add_option("--license", options->license, "licence stored with every document");
  extract
      ->add_option("--output", options->output,
                   "file to write (.jsonl.zst), or a folder: a file for each input, those that are there are kept")
      ->required();
  extract->add_option("--max-bytes", options->max_bytes, "text bytes at most, of one file; 0 = everything");
  extract->add_option("paths", options->inputs, "files and folders")->required();
  extract->callback([options, &action] {
    action = [options] {
      install_signal_handlers();
      const ExtractReport report = extract_files(*options);
      fmt::print("{} documents, {} bytes of text\n", report.documents, report.text_bytes);
    };
  });
}

/// Flags of every verb that makes a corpus.
struct CorpusFlags {
  std::string out, task;
  CorpusRequest request;

  void add(CLI::App& verb) {
    verb.add_option("--task", task,
                    "t/W: this is task t of W over one folder; default: what Slurm or mpirun says, or the only one");
    verb.add_flag("--wait", request.wait, "wait for other tasks instead of ending with 75");
    verb.add_flag("--keep-work", request.keep_work, "keep signatures, hits and the documents between passes");
    verb.add_flag("--keep-removed-text", request.keep_removed_text, "write the text of what goes, too");
  }
  CorpusRequest parsed() const {
    CorpusRequest parsed = request;
    parsed.out = out;
    parsed.share = find_task_share(task);
    return parsed;
  }
};

/// One line on stdout: the corpus is complete.
void make_and_say(const CorpusSettings& settings, const CorpusRequest& request) {
  install_signal_handlers();
  const CorpusOutcome outcome = run_corpus(settings, request);
  fmt::print("{} documents, {} bytes of text\n", outcome.documents.documents, outcome.documents.text_bytes);
}

/// What a file says of a corpus: one that holds [data] alone, or a whole recipe with sources.
struct AskedCorpus {
  std::shared_ptr<const CorpusSettings> settings;
  std::string folder;  // corpora/<name>, unless said
};

AskedCorpus read_asked(const RunRequest& file, const std::string& out) {
  AskedCorpus asked{.settings = nullptr, .folder = out};
  if (!RecipeSource::load(file.recipe_file, file.overrides, file.unset).root().has("stage")) {
    asked.settings = std::make_shared<const CorpusSettings>(load_corpus(file.recipe_file, file.overrides, file.unset));
    if (out.empty())
      asked.folder = (std::filesystem::path("corpora") / std::filesystem::path(file.recipe_file).stem()).string();
    return asked;
  }
  const Recipe recipe = load_recipe(file.recipe_file, file.overrides, file.unset);
  if (recipe.data.corpus == nullptr)
    throw UserError::recipe(file.recipe_file, "the recipe has no [[data.source]], so there is no corpus to make");
  asked.settings = recipe.data.corpus;
  if (out.empty()) asked.folder = recipe.data.corpus_folder;
  return asked;
}

void add_data_run(CLI::App& data, Action& action) {
  struct Flags : RecipeFlags {
    CorpusFlags corpus;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* run = add_verb(data, "run",
                           "make a corpus: sources through filters, near duplicates, decontamination; the same command "
                           "resumes",
                           "coppice data run corpus.toml --out corpora/web --task 3/16");
  flags->add(*run);
  run->add_option("-o,--out", flags->corpus.out, "folder of the corpus; default corpora/<recipe name>");
  flags->corpus.add(*run);
  run->callback([flags, &action] {
    action = [flags] {
      const RunRequest recipe = flags->parsed();
      CorpusRequest request = flags->corpus.parsed();
      const AskedCorpus asked = read_asked(recipe, flags->corpus.out);
      request.out = asked.folder;
      make_and_say(*asked.settings, request);
    };
  });
}

void add_data_plan(CLI::App& data, Action& action) {
  struct Flags : RecipeFlags {
    std::string out;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* plan =
      add_verb(data, "plan", "what a corpus will cost, from the first 1,000 documents of each source; starts nothing",
               "coppice data plan corpus.toml");
  flags->add(*plan);
  plan->add_option("-o,--out", flags->out, "folder of the corpus; default corpora/<recipe name>");
  plan->callback([flags, &action] {
    action = [flags] {
      const RunRequest recipe = flags->parsed();
      const AskedCorpus asked = read_asked(recipe, flags->out);
      const CorpusRequest request{.out = asked.folder};
      const CorpusPlan planned = plan_corpus(*asked.settings, request);
      fmt::print("{}", plan_text(planned));
      flush_result();
      check_fits(planned, request);
    };
  });
}

/// A flag for each option of the kind: `--min-words` of min_words. One of a list may be given several times.
void add_data_kind(CLI::App& data, const StepKind& kind, Action& action) {
  struct Flags {
    StepVerb verb;
    CorpusFlags corpus;
    std::map<std::string, std::string> options, settings;
    std::map<std::string, std::vector<std::string>> lists;  // of the step
  };
  const auto flags = std::make_shared<Flags>();
  flags->verb.kind = kind.kind;
  CLI::App* verb = add_verb(data, kind.kind, kind.about, kind.example);
  verb->add_option("inputs", flags->verb.inputs, "files, folders or patterns, a source each")->required();
  verb->add_option("-o,--out", flags->corpus.out, "folder of the corpus")->required();
  const auto flag_of = [](const StepOption& option) {
    std::string name = "--" + option.key;
    std::ranges::replace(name, '_', '-');
    return name;
  };
  const std::vector<StepOption> options = kind.options();
  for (const StepOption& option : options)
    if (option.is_list)
      verb->add_option(flag_of(option), flags->lists[option.key], option.help)->allow_extra_args(false);
    else
      verb->add_option(flag_of(option), flags->options[option.key], option.help);
  std::vector<StepOption> settings = step_options<CorpusSettings>();
  std::vector<StepOption> source = {{"source", "name of the source, of a single input", Mark::decides},
                                    {"kind",
                                     "of the inputs: warc, wet, jsonl, parquet, html, text or code; default by "
                                     "ending",
                                     Mark::decides},
                                    {"license", "licence of documents that name none", Mark::decides},
                                    {"text", "the field or column that holds a document's text", Mark::decides}};
  for (const auto& list : {settings, source})
    for (const StepOption& option : list)
      if (std::ranges::find(options, option.key, &StepOption::key) == options.end())  // that of the step goes before
        verb->add_option(flag_of(option), flags->settings[option.key], option.help);
  verb->add_option("--stages", flags->verb.stages, "stages of a recipe that may train on the documents; default all")
      ->allow_extra_args(false);
  flags->corpus.add(*verb);
  verb->callback([flags, &action] {
    action = [flags] {
      StepVerb asked = flags->verb;
      for (const auto& [key, value] : flags->options)
        if (!value.empty()) asked.options.emplace_back(key, value);
      for (const auto& [key, values] : flags->lists)
        if (!values.empty()) asked.options.emplace_back(key, list_value(values));
      for (const auto& [key, value] : flags->settings) {
        if (value.empty()) continue;
        if (key == "source") {
          asked.source = value;
        } else if (key == "kind") {
          asked.source_kind = value;
        } else if (key == "license") {
          asked.license = value;
        } else if (key == "text") {
          asked.text = value;
        } else {
          asked.data.emplace_back(key, value);
        }
      }
      make_and_say(read_step_verb(asked), flags->corpus.parsed());
    };
  });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  CLI::App* data = app.add_subcommand("data", "documents and tokens");
  data->require_subcommand(1);
  add_data_tokenize(*data, action);
  add_data_tasks(*data, action);
  add_data_run(*data, action);
  add_data_plan(*data, action);
  add_data_extract(*data, action);
  for (const StepKind* kind : step_kinds())
    if (std::string_view(kind->kind) != "extract") add_data_kind(*data, *kind, action);
  add_data_train_classifier(*data, action);
  add_data_long_qa(*data, action);
  add_data_tune(*data, action);
  add_data_sample(*data, action);
  add_data_stats(*data, action);
  add_data_diff(*data, action);
  add_data_convert(*data, action);
  add_data_domains(*data, action);
  add_data_overlap(*data, action);
}

}  // namespace coppice
