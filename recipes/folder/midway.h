// A training stage that goes on from its checkpoint under other options: an act of a person, recorded. The stage's
// identity then has
//   changes: [{step, fingerprint, keys {<path in the identity>: [before, after]}}]     fingerprint = of the stage
//   before that change
// so that its fingerprint is no longer that of a stage which had these options from the start, and a run without the
// flags finds it again.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recipes/folder/run_folder.h"

namespace coppice {

/// UserError::recipe for a `<stage>.<key>` whose stage the recipe lacks or does not train, or whose key no checkpoint
/// goes on under.
void check_allowed_changes(const std::vector<std::string>& allowed, const Recipe& recipe);

/// What a stage is in a folder that may hold its beginning.
struct MidwayIdentity {
  Json identity;         // as wanted, or with the changes that the folder records, or with new ones
  bool goes_on = false;  // what was begun is another stage by its fingerprint, but one that this goes on from
};
/// `wanted` beside what lies in the folder: changes recorded there belong to it when without them the two are equal; an
/// unfinished training stage whose other options are all `allowed` goes on from its newest checkpoint (or begins anew
/// where it has none). Writes nothing. UserError::recipe for fewer steps than it has behind it.
MidwayIdentity identity_in_folder(const std::filesystem::path& stage_folder, const Stage& stage, const Json& wanted,
                                  const std::vector<std::string>& allowed);
/// Whether a stage of this identity goes on from a checkpoint at `step` that was written under `fingerprint`, not its
/// own: the change happened there.
bool changed_at(const Json& identity, const std::string& fingerprint, int64_t step);
/// Whether a `<stage>.<key>` is among the recorded changes of the stage's identity.
bool records_change(const Json& identity, const std::string& allowed);
/// "core.lr", ...: the flags with which a begun stage would go on, or nothing where it cannot.
std::vector<std::string> keys_to_allow(const Stage& stage, const std::filesystem::path& stage_folder,
                                       const Json& wanted);
/// "lr 0.01 -> 0.003 at step 1200"; empty without changes.
std::string changes_text(const Json& identity);

/// An unfinished stage goes back to an older checkpoint: later ones are set aside as .left-step-*, changes made after
/// it hold from it on. Takes the run's lock. UserError::recipe where no stage is under way, UserError::bad_file for a
/// step without a whole checkpoint.
void rewind_stage(const std::filesystem::path& stage_folder, int64_t step);

}  // namespace coppice
