// coppice: the command table. Each verb owns its flags; errors are caught here alone and become one line and an exit
// code.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "recipes/ablation/ablation.h"
#include "recipes/ablation/run_ablation.h"
#include "recipes/commands/command_diff.h"
#include "recipes/commands/command_extract.h"
#include "recipes/commands/command_labels.h"
#include "recipes/commands/command_tasks.h"
#include "recipes/commands/inspect.h"
#include "recipes/folder/machine.h"
#include "recipes/folder/midway.h"
#include "recipes/folder/run_folder.h"
#include "recipes/language/sources.h"
#include "recipes/report/ablation_report.h"
#include "recipes/run/collect_report.h"
#include "recipes/run/cost.h"
#include "recipes/run/exit_code.h"
#include "recipes/run/recipe_warnings.h"
#include "recipes/run/run_recipe.h"
#include "recipes/stages/export.h"
#include "recipes/stages/prepare_data.h"
#include "recipes/version.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"
#include "src/base/log.h"
#include "src/base/threads.h"
#include "src/checkpoint/checkpoint.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_settings.h"
#include "src/model/generate.h"
#include "src/tensors/device.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// Flags of every verb that reads a recipe.
struct RecipeFlags {
  RunRequest request;
  std::vector<std::string> set;

  void add(CLI::App& verb) {
    verb.add_option("recipe", request.recipe_file, "recipe file (.toml)")->required();
    verb.add_option("--set", set, "override: <stage or table>.<key>=<TOML value>; may be repeated")
        ->take_all()
        ->allow_extra_args(false);
    verb.add_option("--unset", request.unset, "remove a key: <stage or table>.<key>")
        ->take_all()
        ->allow_extra_args(false);
  }
  const RunRequest& parsed() {
    request.overrides.clear();
    for (const std::string& text : set) {
      const size_t equals = text.find('=');
      if (equals == std::string::npos || equals == 0)
        throw UserError::recipe(
            "--set", fmt::format("got '{}', expected <path>=<value>, for instance core.tokens=2e5", printable(text)));
      request.overrides.push_back({text.substr(0, equals), text.substr(equals + 1)});
    }
    return request;
  }
};

/// The stage folder's model: the folder itself or its model/ part.
fs::path model_folder(const fs::path& path) {
  const fs::path model =
      (fs::exists(path / "manifest.json") && read_json(path / "manifest.json").value("format", "") == "coppice.stage"
           ? result_folder(path)
           : path) /
      "model";
  return fs::exists(model / "manifest.json") ? model : path;
}

/// data/tokenizer of the run that holds this stage.
Tokenizer tokenizer_beside(const fs::path& stage) {
  fs::path root = fs::absolute(stage).lexically_normal();
  for (int up = 0; up < 4; ++up) {  // <run>/<stage>, its model/, and <run>/<arm>/seed-<n>/<stage>
    root = root.parent_path();
    if (fs::exists(root / "data" / "tokenizer" / "tokenizer.model"))
      return Tokenizer::load(root / "data" / "tokenizer" / "tokenizer.model");
  }
  throw UserError::bad_file(stage.string(),
                            "no data/tokenizer/tokenizer.model in the run folder above it; give the folder of a run's "
                            "stage, for instance runs/demo/long");
}

void check_tokenizer(const LoadedModel& loaded, const Tokenizer& tokenizer, const fs::path& path) {
  const std::string expected = loaded.manifest.value("tokenizer_sha256", "");
  if (expected != tokenizer.fingerprint())
    throw UserError::bad_file(path.string(),
                              fmt::format("the model was trained with tokenizer {}, data/tokenizer is {}", expected,
                                          tokenizer.fingerprint()));
}

void print_version() {
  const Json versions = versions_json(), machine = machine_json();
  fmt::print("coppice {} ({}, {})\n", versions["coppice"].get<std::string>(), versions["git"].get<std::string>(),
             versions["build"].get<std::string>());
  for (const char* key : {"torch", "hdf5", "compiler"})
    fmt::print("{:<13} {}\n", key, versions[key].get<std::string>());
  std::istringstream libraries(kLibraries);
  for (std::string name, version; libraries >> name >> version;) fmt::print("{:<13} {}\n", name, version);
  fmt::print("{:<13} {}, {}, {} threads\n", "cpu", machine["cpu"].get<std::string>(),
             machine["cpu_capability"].get<std::string>(), machine["threads"].get<int>());
  fmt::print("{:<13} {}\n", "cuda", built_with_cuda() ? "built in" : "not built in");
}

/// What was printed is out, before a warning or the end; a failure is said once and lost in stdio, so that every flush
/// is checked.
void flush_result() {
  if (std::fflush(stdout) != 0) throw IoError("stdout", "the result cannot be written", errno);
}

/// Builds the table of verbs; `action` receives what the chosen one does.
void add_verbs(CLI::App& app, std::function<void()>& action) {
  const auto verb = [&](CLI::App& parent, const char* name, const char* about, const char* example) {
    CLI::App* added = parent.add_subcommand(name, about);
    added->footer(std::string("Example:\n  ") + example);
    return added;
  };
  static RecipeFlags flags;  // one verb runs
  {
    CLI::App* run =
        verb(app, "run", "run a recipe: all stages; the same command again resumes, or says that it is complete",
             "coppice run recipes/demo.toml --set core.tokens=2e5");
    flags.add(*run);
    run->add_option("--out", flags.request.out, "run folder; default runs/<recipe name>");
    run->add_flag("--rerun", flags.request.rerun, "move stages made with other options aside and run them again");
    run->add_flag("--fresh", flags.request.fresh, "refuse a folder that already holds a run");
    run->add_option("--allow-change", flags.request.allow_change,
                    "<stage>.<key> that the recipe now has otherwise: the stage under way goes on from its checkpoint, "
                    "and the change is recorded; may be repeated")
        ->take_all()
        ->allow_extra_args(false)
        ->excludes("--rerun");
    run->callback([&action] { action = [] { run_recipe(flags.parsed()); }; });
  }
  {
    static std::string stage;
    static int64_t step = 0;
    CLI::App* rewind =
        verb(app, "rewind", "take a stage under way back to one of its checkpoints; later ones are set aside",
             "coppice rewind runs/demo/core --step 100");
    rewind->add_option("stage", stage, "stage folder of a run, for instance runs/demo/core")->required();
    rewind->add_option("--step", step, "of a checkpoint in its ckpt/")
        ->required()
        ->check(CLI::Range(int64_t{0}, int64_t{99'999'999}));
    rewind->callback([&action] { action = [] { rewind_stage(stage, step); }; });
  }
  {
    static int jobs = 0;
    CLI::App* ablate = verb(app, "ablate",
                            "run every [[arm]] of a recipe under all its seeds; what arms share is computed once; the "
                            "same command again resumes",
                            "coppice ablate recipes/prune_x_distil.toml --jobs 2");
    flags.add(*ablate);
    ablate->add_option("--out", flags.request.out, "run folder; default runs/<recipe name>");
    ablate->add_option("--jobs", jobs, "stages at a time; default processors / threads of the recipe")
        ->check(CLI::Range(0, 1024));
    ablate->add_flag("--rerun", flags.request.rerun, "move stages made with other options aside and run them again");
    ablate->add_flag("--fresh", flags.request.fresh, "refuse a folder that already holds a run");
    ablate->callback([&action] { action = [] { run_ablation(flags.parsed(), jobs); }; });
  }
  {
    static int jobs = 0;
    CLI::App* plan = verb(app, "plan", "parameters, tokens, FLOPs, memory, disk and time of each stage; starts nothing",
                          "coppice plan recipes/demo.toml");
    flags.add(*plan);
    plan->add_option("--out", flags.request.out, "run folder whose disk is checked");
    plan->add_option("--jobs", jobs, "of an ablation: stages at a time")->check(CLI::Range(0, 1024));
    plan->callback([&action] {
      action = [] {
        const RunRequest request = flags.parsed();
        const Recipe recipe =
            load_recipe(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
        if (!recipe.arms.empty()) {
          Ablation ablation = load_ablation(request.recipe_file, request.overrides, request.unset, recipe.sources);
          check_before_work(ablation, Missing::allowed);
          const Parallelism parallel = parallelism_of(recipe, jobs);
          start_torch(parallel.threads);
          say_what_is_gone(recipe);
          const AblationPlan planned = plan_ablation(ablation, "", gemm_gflops());
          std::vector<std::string> lines = ablation_warnings(ablation);
          for (const ArmRun& run : ablation.runs)
            std::ranges::copy(corpus_warnings(run.recipe, estimate_tokens(recipe)), std::back_inserter(lines));
          fmt::print("{}{}", ablation_cost_table(ablation, planned, parallel.jobs), warnings_text(lines));
          flush_result();
          check_fits(ablation_cost(planned, parallel.jobs), run_root(flags.request, recipe));
          return;
        }
        check_before_work(recipe, Missing::allowed);
        start_torch(recipe.threads);
        const RecipeCost cost = estimate_cost(recipe, corpus_bytes(recipe), gemm_gflops());
        say_what_is_gone(recipe);
        std::vector<std::string> lines = recipe_warnings(recipe);
        std::ranges::copy(corpus_warnings(recipe, estimate_tokens(recipe)), std::back_inserter(lines));
        fmt::print("{}{}", cost_table(recipe, cost), warnings_text(lines));
        flush_result();
        check_fits(cost, run_root(flags.request, recipe));
      };
    });
  }
  {
    CLI::App* config = verb(app, "config", "the resolved recipe, each value with its origin",
                            "coppice config recipes/demo.toml --set seed=2");
    flags.add(*config);
    config->add_option("--out", flags.request.out,
                       "run folder, whose record holds for what is gone; default runs/<recipe name>");
    config->callback([&action] {
      action = [] {
        const RunRequest request = flags.parsed();
        const Recipe recipe =
            load_recipe(request.recipe_file, request.overrides, request.unset, std::make_shared<Sources>(request.out));
        std::vector<std::string> lines;
        if (recipe.arms.empty()) {
          check_before_work(recipe, Missing::allowed);
          lines = recipe_warnings(recipe);
        } else {
          const Ablation ablation =
              load_ablation(request.recipe_file, request.overrides, request.unset, recipe.sources);
          check_before_work(ablation, Missing::allowed);
          lines = ablation_warnings(ablation);
        }
        say_what_is_gone(recipe);
        fmt::print("{}", recipe.with_origins);
        flush_result();
        log_warnings(lines);
      };
    });
  }
  {
    static std::string folder;
    CLI::App* report =
        verb(app, "report", "rebuild the report of a run, or the tables of an ablation, from what it left",
             "coppice report runs/demo");
    report->add_option("run", folder, "run folder")->required();
    report->callback([&action] {
      action = [] {
        const fs::path root = folder;
        const bool ablation = fs::exists(root / "recipe.toml") && !load_recorded_recipe(root).arms.empty();
        const std::string verdict = ablation ? write_ablation_report(root) + "\n" : write_report(root);
        fmt::print(
            "{}\n{}, .md, .json\n", verdict,
            ablation ? "tables: " + (root / "ablation.html").string() : "report: " + (root / "report.html").string());
      };
    });
  }
  {
    static std::string path;
    CLI::App* show = verb(app, "inspect", "what a file or folder holds, and whether it is whole",
                          "coppice inspect runs/demo/masks/masks.h5");
    show->add_option("path", path,
                     "run, stage, model, checkpoint, tokens, labels or Hugging Face folder; .safetensors, masks.h5, "
                     "prune_plan.json, tokenizer.model")
        ->required();
    show->callback([&action] { action = [] { fmt::print("{}", inspect(path)); }; });
  }
  {
    static std::string first, second;
    CLI::App* compare = verb(app, "diff", "what two mask files, prune plans, recipes or manifests differ in",
                             "coppice diff runs/demo/pruned/prune_plan.json runs/demo/cut_magnitude/prune_plan.json");
    compare->add_option("a", first, "masks.h5, prune_plan.json, recipe (.toml) or JSON file")->required();
    compare->add_option("b", second, "another of the same kind")->required();
    compare->callback([&action] { action = [] { fmt::print("{}", diff(first, second)); }; });
  }
  {
    static std::string stage, prompt;
    static GenerateOptions options;
    CLI::App* write = verb(app, "generate", "continue a prompt",
                           "coppice generate runs/demo/long --prompt \"The tree\" --max-new-tokens 40");
    write->add_option("stage", stage, "stage folder of a run, for instance runs/demo/long")->required();
    write->add_option("--prompt", prompt, "text to continue")->required();
    write->add_option("--max-new-tokens", options.max_new_tokens, "tokens to add at most")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
    write->add_option("--sampling-temperature", options.sampling_temperature, "0 = greedy")
        ->check(CLI::Range(0.0, 100.0));
    write->add_option("--seed", options.seed, "of the sampling stream");
    write->callback([&action] {
      action = [] {
        start_torch(0);
        const LoadedModel loaded = load_model(model_folder(stage));
        const Tokenizer tokenizer = tokenizer_beside(stage);
        check_tokenizer(loaded, tokenizer, stage);
        std::vector<int64_t> ids = {tokenizer.eos_id()};  // a document starts after the last one's end
        for (const int32_t id : tokenizer.encode(prompt)) ids.push_back(id);
        const std::vector<int64_t> added = generate(loaded.model, ids, tokenizer.eos_id(), options);
        const std::vector<int32_t> added_ids(added.begin(), added.end());
        fmt::print("{}{}\n", prompt,
                   prompt.empty() ? tokenizer.decode(added_ids) : tokenizer.decode_continuation(added_ids));
      };
    });
  }
  {
    static std::string stage, out, dtype = "f32";
    static std::vector<std::string> formats = {"hf"};
    CLI::App* exports = verb(app, "export", "write a stage's model for other programs",
                             "coppice export runs/demo/long -o out --format hf");
    exports->add_option("stage", stage, "stage folder of a run")->required();
    exports->add_option("-o,--out", out, "folder to create")->required();
    exports->add_option("--format", formats, "hf")->delimiter(',')->check(CLI::IsMember({"hf"}));
    exports->add_option("--dtype", dtype, "f32 or bf16")->check(CLI::IsMember({"f32", "bf16"}));
    exports->callback([&action] {
      action = [] {
        start_torch(0);
        if (fs::exists(out))
          throw UserError::recipe("-o", fmt::format("{} exists already; name a folder to create", out));
        const LoadedModel loaded = load_model(model_folder(stage));
        const Tokenizer tokenizer = tokenizer_beside(stage);
        check_tokenizer(loaded, tokenizer, stage);
        const std::optional<HfSettings> settings = settings_for_export(stage);
        if (const std::string warning = prefix_warning(tokenizer); !warning.empty()) log_warning(warning);
        const HfExportReport report =
            export_hf(out, loaded.model, tokenizer, dtype, {.settings = settings ? &*settings : nullptr});
        fmt::print("{}: {}, re-imported logits differ by {:.2e}\n", out,
                   format_bytes(static_cast<double>(report.bytes)), report.max_logit_difference);
      };
    });
  }
  {
    CLI::App* labels = app.add_subcommand("labels", "teacher labels from and for other programs");
    labels->require_subcommand(1);
    static LabelsOptions options;
    const auto common = [](CLI::App& command) {
      command.add_option("file", options.file, ".jsonl or .jsonl.zst, one document a line")->required();
      command
          .add_option("--tokens", options.tokens,
                      "token shards of the domain, for instance runs/demo/data/tokens/prose")
          ->required();
      command
          .add_option("--cache", options.cache,
                      "label folder of the domain, for instance runs/demo/labels/labels/prose")
          ->required();
    };
    CLI::App* out = verb(*labels, "export", "write a label cache as JSONL",
                         "coppice labels export prose.jsonl.zst --tokens runs/demo/data/tokens/prose --cache "
                         "runs/demo/labels/labels/prose");
    common(*out);
    out->callback([&action] { action = [] { run_labels_export(options); }; });
    CLI::App* in = verb(*labels, "import", "make a label cache from JSONL",
                        "coppice labels import prose.jsonl.zst --tokens runs/demo/data/tokens/prose --cache "
                        "served/prose --teacher served-7b --tier topk --top-k 20");
    common(*in);
    in->footer(in->get_footer() +
               "\n\nA file that `labels export` wrote says what its labels are: the flags may be left out, and must "
               "agree with it.");
    in->add_option("--teacher", options.teacher, "name of where the labels come from; part of the cache's fingerprint");
    in->add_option("--tier", options.tier, "top1, top1_prob or topk (default)")
        ->check(CLI::IsMember({"top1", "top1_prob", "topk"}));
    in->add_option("--top-k", options.k, "ids a token at most, in tier topk");
    in->add_option("--temperature", options.temperature, "of the log-probabilities")->check(CLI::PositiveNumber);
    in->add_option("--format", options.format,
                   "coppice, or vllm: prompt_logprobs, or lists of any number of ids, of documents that are cut short "
                   "or lack their end")
        ->check(CLI::IsMember({"coppice", "vllm"}));
    in->add_flag("--low-mass", options.low_mass,
                 "take log-probabilities of which most tokens hold less than 0.01 and no tail says so");
    in->callback([&action] { action = [] { run_labels_import(options); }; });
    static std::string stage;
    CLI::App* join =
        verb(*labels, "join", "label shards of a stage that `coppice run` is at in another process, until none is left",
             "coppice labels join recipes/demo.toml --stage labels");
    flags.add(*join);
    join->add_option("--out", flags.request.out, "run folder; default runs/<recipe name>");
    join->add_option("--stage", stage, "label stage of the recipe")->required();
    join->callback([&action] { action = [] { join_labels(flags.parsed(), stage); }; });
  }
  {
    CLI::App* data = app.add_subcommand("data", "documents and tokens");
    data->require_subcommand(1);
    CLI::App* tokenize = verb(*data, "tokenize", "only the data of a recipe: tokenizer, token shards, held-out split",
                              "coppice data tokenize recipes/demo.toml");
    flags.add(*tokenize);
    tokenize->add_option("--out", flags.request.out, "run folder; default runs/<recipe name>");
    tokenize->callback([&action] { action = [] { tokenize_recipe(flags.parsed()); }; });

    static std::string folder;
    CLI::App* tasks = verb(*data, "tasks",
                           "multiple-choice items out of the documents that a recipe holds out: a task file each for "
                           "continuation and word",
                           "coppice data tasks recipes/demo.toml --output data/tasks");
    flags.add(*tasks);
    tasks->add_option("--output", folder, "folder to write")->required();
    tasks->callback([&action] {
      action = [] {
        run_data_tasks(load_recipe(flags.parsed().recipe_file, flags.request.overrides, flags.request.unset), folder);
      };
    });

    static ExtractOptions options;
    CLI::App* extract = verb(*data, "extract", "turn folders of text, HTML and source code into documents",
                             "coppice data extract --source notes --license CC0-1.0 --output notes.jsonl.zst ~/notes");
    extract->add_option("--source", options.source, "where the text comes from; opens every document id")->required();
    extract->add_option("--license", options.license, "licence stored with every document");
    extract->add_option("--output", options.output, "file to write (.jsonl.zst)")->required();
    extract->add_option("--max-bytes", options.max_bytes, "text bytes at most; 0 = everything");
    extract->add_option("paths", options.inputs, "files and folders")->required();
    extract->callback([&action] { action = [] { run_extract(options); }; });
  }
}

int main_with_errors(int argc, char** argv) {
  CLI::App app("coppice: learn which FFN channels a language model needs, cut the rest, distil what is left");
  app.footer(
      "Example:\n  coppice plan recipes/demo.toml && coppice run recipes/demo.toml\n\nExit codes: 0 done, 1 internal, "
      "2 recipe or usage, 3 bad input file, 4 "
      "I/O or disk full, 5 run folder locked, 6 diverged,\n7 out of memory, 75 stopped after saving (run again).");
  app.require_subcommand(0, 1);
  app.fallthrough();
  bool version = false, quiet = false, json = false;
  app.add_flag("--version", version, "libraries, build and CPU");
  app.add_flag("--quiet", quiet, "warnings and errors only");
  app.add_flag("--json", json, "progress as JSON lines on stderr");
  std::function<void()> action;
  add_verbs(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);  // prints help or the message
    return code == 0 ? 0 : static_cast<int>(ExitCode::recipe);
  }
  set_log_style(quiet ? LogStyle::quiet : json ? LogStyle::json : LogStyle::automatic);
  if (version) {
    start_torch(0);
    print_version();
    flush_result();
    return 0;
  }
  if (!action) {
    fmt::print("{}", app.help());
    return static_cast<int>(ExitCode::recipe);
  }
  action();
  flush_result();
  return 0;
}

}  // namespace
}  // namespace coppice

COPPICE_BOUND_SPINNING;

int main(int argc, char** argv) {
  using namespace coppice;
  start_hdf5();
  for (const int number : {SIGPIPE, SIGXFSZ})
    std::signal(number,
                SIG_IGN);  // EPIPE and EFBIG instead; run and ablate handle stops, elsewhere a signal ends at once
  return run_guarded([&] { return main_with_errors(argc, argv); });
}
