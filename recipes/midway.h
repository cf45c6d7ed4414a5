// A training stage that goes on from a checkpoint with other options, or from an older checkpoint: acts of a person, recorded. The stage's identity then has
//   changes: [{step, fingerprint, keys {<path in the identity>: [before, after]}}]     fingerprint = of the stage before that change
// so that its fingerprint is no longer that of a stage which had these options from the start, and a run without the flags finds it again.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "recipes/run_folder.h"

namespace coppice {

struct MidwayRequest {
  std::vector<std::string> allowed;    // --allow-change: <stage>.<key>
  std::optional<int64_t> resume_from;  // --resume-from: step
  bool empty() const { return allowed.empty() && !resume_from; }
};

/// UserError::recipe for a stage that the recipe lacks or that does not train, or a key that no checkpoint goes on under.
void check_midway(const MidwayRequest& request, const Recipe& recipe);
/// `wanted`, with the changes that the folder records if without them it is what lies there.
Json with_recorded_changes(const std::filesystem::path& stage_folder, Json wanted);
/// Brings a begun, unfinished stage to where it is to go on: checkpoints after `resume_from` are set aside, and options that differ from `wanted` in allowed
/// keys alone are recorded from that step on (identity.json). UserError::bad_file for a step without a whole checkpoint. Nothing to change: no effect.
void go_on_midway(RunFolder& run, const Stage& stage, const Json& wanted, const MidwayRequest& request);
/// Whether a stage of this identity goes on from a checkpoint at `step` that was written under `fingerprint`, not its own: the change happened there.
bool changed_at(const Json& identity, const std::string& fingerprint, int64_t step);
/// "core.lr", ...: the flags with which a begun stage would go on, or nothing where it cannot.
std::vector<std::string> keys_to_allow(const Stage& stage, const std::filesystem::path& stage_folder, const Json& wanted);
/// "lr 0.01 -> 0.003 at step 1200"; empty without changes.
std::string changes_text(const Json& identity);

}  // namespace coppice
