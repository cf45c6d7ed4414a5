// The recipe language: a TOML file becomes these structs, checked whole before any work starts.
// Rules: stage kinds are rows (recipes/stages/stages.cpp); `from`, `teacher`, `labels`, `of` name earlier stages; an
// option of a stage is addressed as <stage name>.<key>; [model.student] inherits every key of [model.source]; [[arm]]
// tables with `seeds` make the file an ablation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "recipes/language/stage.h"
#include "src/base/option_mark.h"
#include "src/cli/options.h"
#include "src/model/config.h"
#include "src/tokens/source_rights.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {

class Sources;
struct CorpusSettings;

struct DomainOptions {
  std::string name;
  std::string path;                  // of one that names sources: where their documents lie in the corpus
  std::vector<std::string> sources;  // of the recipe's own corpus
  std::string text_key = "text";
  double weight = 1.0;
  double max_epochs = 0;
  std::vector<SourceRights> rights;  // of the documents, where they come from a corpus

  template <class Field>
  void visit_fields(Field& field) {
    field("name", name, Mark::place, "what reports call it");
    field("path", path, Mark::place,
          ".jsonl, .ndjson, .json (each also with .gz or .zst behind it), .txt or a folder of them");
    field("sources", sources, Mark::place, "in place of a path: names of [[data.source]] whose documents it holds");
    field("text_key", text_key, Mark::decides, "the JSON field that holds a document's text");
    field("weight", weight, Mark::decides, "share in the mixture, relative to the others");
    field("max_epochs", max_epochs, Mark::decides, "the mixture stops drawing from it then; 0 = no limit");
  }
};

struct DataOptions {
  std::vector<DomainOptions> domains;
  std::shared_ptr<const CorpusSettings> corpus;  // of [[data.source]] and [[data.step]]; nullptr without any
  std::string corpus_folder;                     // where it lies
  double heldout_share = 0.01;
  double tuning_share = 0;
  int64_t shard_tokens = int64_t{64} << 20;
  int64_t max_bad = -1;

  template <class Field>
  void visit_fields(Field& field) {
    field("corpus_folder", corpus_folder, Mark::place,
          "where [[data.source]] and [[data.step]] are made into a corpus; default corpora/<name>");
    field("max_bad", max_bad, Mark::cadence,
          "records of a corpus file that are no documents and are left out with a warning; -1 = the larger of 100 and "
          "0.1% of the file");
    field("heldout_share", heldout_share, Mark::decides,
          "documents set aside by id hash, never trained on; evaluation reads only these");
    field("tuning_share", tuning_share, Mark::decides,
          "documents set aside beside them, neither trained on nor held out: what options are chosen by reads these "
          "(split, eval_split)");
    field("shard_tokens", shard_tokens, Mark::decides,
          "tokens of a shard at most: the unit in which labelling resumes");
  }
};

/// One arm of an ablation: the same file with these keys set and these stages removed.
struct ArmOptions {
  std::string name, where;
  std::string reference;  // empty = the recipe's
  std::vector<Override> set;
  std::vector<std::string> drop;
};

struct Recipe {
  std::string name;
  uint64_t seed = 1;
  PlacementOptions placement;
  int threads = 0;
  int grace_s = 25;
  DataOptions data;
  TokenizerOptions tokenizer;
  std::map<std::string, ModelConfig> models;
  std::vector<Stage> stages;
  std::vector<ArmOptions> arms;      // empty unless the file is an ablation
  std::vector<uint64_t> seeds;       // of an ablation; empty = the recipe's seed
  std::string reference;             // arm that the others are compared with; empty = the first
  std::vector<std::string> compare;  // stages whose models are compared; empty = the last one evaluated
  std::string resolved;              // canonical TOML
  std::string with_origins;          // the same with a comment per line
  std::shared_ptr<Sources> sources;  // what it reads from outside; its arms share it

  const Stage& stage(const std::string& stage_name) const;  // InternalError when absent
  /// Shape of the model a stage leaves behind, by the rules alone; InternalError when it leaves none.
  ModelConfig model_after(const std::string& stage_name) const;
};

/// Reads, resolves and checks a recipe; every refusal is UserError::recipe with file:line (exit 2). `sources`: what a
/// run recorded of what lies outside; left out, those of runs/<name>. `arm`: as that arm of it changes the file.
Recipe load_recipe(const std::string& file, const std::vector<Override>& overrides,
                   const std::vector<std::string>& unset, std::shared_ptr<Sources> sources = nullptr,
                   const ArmOptions* arm = nullptr);
/// The recipe that a run folder holds, as the run knew the world.
Recipe load_recorded_recipe(const std::filesystem::path& run_root);

}  // namespace coppice
