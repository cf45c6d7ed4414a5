// The run folder: who may write it, what each stage was asked to do (identity.json), what it left (manifest.json), and what a run knows of
// itself (run.json). A stage whose fingerprint equals that of its manifest is not run again.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "recipes/recipe.h"
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

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path stage(const std::string& name) const { return root_ / name; }

  /// Writes identity.json of a stage that begins; creates its folder.
  void begin_stage(const std::string& name, const std::string& fingerprint, const Json& identity);
  /// Commits manifest.json as the last act: `body` plus the files of the folder with sizes and hashes.
  void finish_stage(const std::string& name, const std::string& kind, const std::string& fingerprint, Json body);
  /// Adds to the seconds of a stage in run.json (summed over restarts).
  void add_seconds(const std::string& name, double seconds);
  double seconds(const std::string& name) const;
  /// run.json: versions, host, device, seed, begin times; never the environment.
  void write_run_file(const Recipe& recipe);

 private:
  std::filesystem::path root_;
  std::unique_ptr<FolderLock> lock_;
};

/// The sealed manifest of a finished stage; nothing when the stage is not finished. UserError::bad_file when it is damaged.
std::optional<StageManifest> find_stage_manifest(const std::filesystem::path& stage_folder);
/// Fingerprint a begun stage was started with; empty when the folder holds none.
std::string begun_fingerprint(const std::filesystem::path& stage_folder);

/// What decides a stage's result: kind, options, fingerprints of inputs, seed, data, format version; not threads, paths or cadences.
Json stage_identity(const Recipe& recipe, const Stage& stage, const std::map<std::string, std::string>& input_fingerprints, const std::string& data_fingerprint);

/// {coppice, git, torch, hdf5, compiler, build}: recorded, never compared.
Json versions_json();
/// {device, cpu, threads, deterministic, gemm_gflops}: this machine as the run uses it.
Json machine_json();
/// fp32 GEMM rate of this very machine with the threads set (GFLOP/s); measured once per process in about a tenth of a second.
double gemm_gflops();

}  // namespace coppice
