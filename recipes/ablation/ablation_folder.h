// Where an ablation's results lie: runs/<recipe>/<arm>/seed-<n>/<stage>, the data once at the root. Each distinct stage
// has one holder, the folder that has or will have its result; every other folder of the same fingerprint says
// `same_as`.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "recipes/ablation/ablation.h"
#include "recipes/folder/run_folder.h"

namespace coppice {

struct Holder {
  std::string folder;  // relative to the run: <arm>/seed-<n>/<stage>
  bool done = false;
};

/// Fingerprints of all stages that are finished somewhere in the run, those that were set aside too.
std::set<std::string> finished_fingerprints(const std::filesystem::path& root);
/// Finds the holder of every distinct stage, finished ones first, also in arms that the recipe no longer has. Folders
/// that hold results of other options: exit 2 naming them, or with `rerun` they are moved aside (and back to where they
/// are wanted). Begun stages go on where they were begun.
std::vector<Holder> find_holders(const std::filesystem::path& root, const Ablation& ablation, AblationPlan& plan,
                                 bool rerun);

/// Writes `same_as` into the folders of all other arms and seeds that share a finished stage; removes one that is no
/// longer true, also where the stage itself will be done.
void link_sharers(const std::filesystem::path& root, const Ablation& ablation, size_t distinct,
                  const AblationPlan& plan, const Holder& holder);
/// Refuses (exit 4 or 7) what has no room for the stages that are still to be run, of a device one at a time. Asks the
/// CUDA driver.
void check_rest_fits(const Ablation& ablation, AblationPlan plan, const std::vector<Holder>& holders,
                     const std::filesystem::path& root, int jobs);

}  // namespace coppice
