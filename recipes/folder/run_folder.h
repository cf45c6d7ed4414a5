// The run folder: who may write it, what each stage was asked to do (identity.json), what it left (manifest.json), and
// what a run knows of itself (run.json). A stage whose fingerprint equals that of its manifest is not run again. In an
// ablation a stage's manifest may say `same_as`: the folder of another arm or seed holds the result; whoever reads a
// stage follows it.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "src/base/files.h"
#include "src/base/json.h"

namespace coppice {

/// What a finished stage left, from its sealed manifest.
struct StageManifest {
  std::string name, kind, fingerprint;
  Json body;  // options, inputs, files, steps, tokens, results
};

class RunFolder {
 public:
  /// Creates the folder, refuses a read-only one (exit 4) or one that another process writes (exit 5).
  explicit RunFolder(std::filesystem::path root);
  /// The folder of one arm and seed inside a run that this process, or the one that started it, has locked.
  static RunFolder within_locked_run(std::filesystem::path root);
  /// The folder of a run that another process may be writing: for reading, and for what several processes share out by
  /// locks of its own.
  static RunFolder beside_its_owner(std::filesystem::path root);
  /// In a forked child: the lock stays its parent's alone, and goes with it.
  void leave_lock_to_parent() { lock_.reset(); }

  const std::filesystem::path& root() const { return root_; }
  /// Where the stage's result lies or will lie.
  std::filesystem::path stage(const std::string& name) const;

  /// Writes identity.json of a stage that begins; creates its folder.
  void begin_stage(const std::string& name, const std::string& fingerprint, const Json& identity);
  /// Commits manifest.json as the last act: `body` plus the files of the folder and its subfolders with sizes and
  /// hashes.
  void finish_stage(const std::string& name, const std::string& kind, const std::string& fingerprint, Json body);
  /// Adds to the seconds of a stage in run.json (summed over restarts), and to those of them in which training stood
  /// still for its checkpoints.
  void add_seconds(const std::string& name, double seconds, double checkpoint_stall_s = 0);
  /// Keeps what the plan says of a stage, for the report to hold against what happens.
  void add_prediction(const std::string& name, double seconds, double memory_bytes);
  /// Keeps the largest resident memory that any start of the stage has seen.
  void add_peak(const std::string& name, double bytes);
  /// Moves a stage's folder to .old-<stage>-<8 hex> (or .old-<stage>-<8 hex>.2, ...), so that a changed recipe never
  /// destroys a result.
  void move_aside(const std::string& name, const std::string& old_fingerprint);
  /// run.json: versions, host, device of the recipe's keys, seed, begin times; never the environment. Asks the CUDA
  /// driver.
  void write_run_file(const Recipe& recipe);

 private:
  RunFolder() = default;
  std::filesystem::path root_;
  std::unique_ptr<FolderLock> lock_;
};

/// `stage_folder` itself, or the folder its manifest's `same_as` names, <arm>/seed-<n>/<stage> below the run.
/// UserError::bad_file for any other path.
std::filesystem::path result_folder(const std::filesystem::path& stage_folder);
/// Commits a manifest that stands for another folder's result; `same_as` is relative to the run.
void write_same_as(const std::filesystem::path& stage_folder, const std::string& name, const std::string& kind,
                   const std::string& fingerprint, const std::string& same_as);

/// The sealed manifest of a finished stage (of the folder `same_as` names, where it says so); nothing when the stage is
/// not finished. UserError::bad_file when it is damaged, or a file it lists is missing or differs (parts of models and
/// labels: in size; their hashes are compared when they are read).
std::optional<StageManifest> find_stage_manifest(const std::filesystem::path& stage_folder);
/// The sealed identity.json of a begun stage: fingerprint, identity; nothing when the folder holds none.
std::optional<Json> begun_identity(const std::filesystem::path& stage_folder);
/// Fingerprint a begun stage was started with; empty when the folder holds none.
std::string begun_fingerprint(const std::filesystem::path& stage_folder);

/// What decides a stage's result: kind, options, fingerprints of inputs, seed, data, format version; not threads, paths
/// or cadences.
Json stage_identity(const Recipe& recipe, const Stage& stage,
                    const std::map<std::string, std::string>& input_fingerprints, const std::string& data_fingerprint);

}  // namespace coppice
