#include "recipes/ablation/ablation_folder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "recipes/folder/stage_changes.h"
#include "recipes/run/placed_cost.h"
#include "recipes/run/run_recipe.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

/// What stands in a stage's folder itself, `same_as` not followed.
struct Held {
  std::string fingerprint;  // empty: nothing, or only `same_as`
  bool finished = false;
};

/// What a folder that stands for another's result says; nothing for every other folder.
struct Link {
  std::string fingerprint, same_as;
  bool operator==(const Link&) const = default;
};
std::optional<Link> find_link(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  if (!fs::exists(path)) return std::nullopt;
  const Json manifest = read_json(path);
  if (!manifest.contains("same_as")) return std::nullopt;
  return Link{.fingerprint = string_at(manifest, "fingerprint", path.string()),
              .same_as = string_at(manifest, "same_as", path.string())};
}

Held held_in(const fs::path& folder) {
  if (find_link(folder)) return {};
  if (const auto manifest = find_stage_manifest(folder))
    return {.fingerprint = manifest->fingerprint, .finished = true};
  return {.fingerprint = begun_fingerprint(folder), .finished = false};
}

/// Finished results anywhere in the run, relative to it, by fingerprint; those moved aside (".old-...") last.
std::multimap<std::string, std::string> finished_results(const fs::path& root) {
  std::multimap<std::string, std::string> found, aside;
  for (const auto& arm : fs::directory_iterator(root)) {
    if (!arm.is_directory() || arm.path().filename() == "data") continue;
    for (const auto& seed : fs::directory_iterator(arm.path())) {
      if (!seed.is_directory() || !seed.path().filename().string().starts_with("seed-")) continue;
      for (const auto& stage : fs::directory_iterator(seed.path())) {
        if (!fs::exists(stage.path() / "manifest.json") || find_link(stage.path())) continue;
        const bool old = stage.path().filename().string().starts_with(".");
        (old ? aside : found)
            .emplace(find_stage_manifest(stage.path())->fingerprint, fs::relative(stage.path(), root).generic_string());
      }
    }
  }
  found.merge(aside);
  return found;
}

std::string slot(const ArmRun& run, size_t stage) { return run.folder() + "/" + run.recipe.stages[stage].name; }

}  // namespace

std::set<std::string> finished_fingerprints(const fs::path& root) {
  std::set<std::string> fingerprints;
  for (const auto& [fingerprint, folder] : finished_results(root)) fingerprints.insert(fingerprint);
  return fingerprints;
}

std::vector<Holder> find_holders(const fs::path& root, const Ablation& ablation, AblationPlan& plan, bool rerun) {
  std::vector<std::string> changed;
  std::vector<Holder> holders(plan.stages.size());
  for (size_t turn = 0; turn < 2; ++turn) {  // finished results first, then begun ones
    for (size_t r = 0; r < ablation.runs.size(); ++r) {
      const ArmRun& run = ablation.runs[r];
      for (size_t s = 0; s < run.stages.size(); ++s) {
        DistinctStage& wanted = plan.stages[run.stages[s]];
        Holder& holder = holders[run.stages[s]];
        const fs::path folder = root / slot(run, s);
        const Held held = held_in(folder);
        if (!held.fingerprint.empty() && held.fingerprint != wanted.fingerprint) {
          if (!rerun && turn == 0) {
            const auto begun = begun_identity(folder);
            changed.push_back(fmt::format(
                "{} ({})", slot(run, s),
                begun ? changed_keys(begun->value("identity", Json::object()), wanted.identity) : "no identity.json"));
          }
          if (rerun)
            RunFolder::within_locked_run(root / run.folder()).move_aside(run.recipe.stages[s].name, held.fingerprint);
        } else if (!held.fingerprint.empty() && held.finished == (turn == 0) && holder.folder.empty()) {
          holder = {.folder = slot(run, s), .done = held.finished};
          wanted.run = r;
          wanted.stage = s;
        }
      }
    }
  }
  if (!changed.empty())
    throw UserError::recipe("", fmt::format("{} holds results of other options for: {}; run with --rerun to move them "
                                            "aside and run these stages again, or choose another folder with --out",
                                            root.string(), fmt::join(changed, ", ")));
  const auto elsewhere = finished_results(root);
  for (size_t d = 0; d < holders.size(); ++d) {
    const DistinctStage& wanted = plan.stages[d];
    if (holders[d].done) continue;
    const std::string own = slot(ablation.runs[wanted.run], wanted.stage);
    const auto found = elsewhere.find(wanted.fingerprint);
    if (found == elsewhere.end()) {
      holders[d].folder = own;
    } else if (fs::path(found->second).filename().string().starts_with(".")) {
      fs::remove_all(root / own);
      make_folder((root / own).parent_path());
      commit_rename(root / found->second, root / own);
      holders[d] = {.folder = own, .done = true};
      log_info(fmt::format("{}: taken back from {}", own, found->second));
    } else {
      holders[d] = {.folder = found->second, .done = true};
    }
  }
  return holders;
}

void check_rest_fits(const Ablation& ablation, AblationPlan plan, const std::vector<Holder>& holders,
                     const fs::path& root, int jobs) {
  if (std::ranges::all_of(holders, &Holder::done)) return;
  const auto rest = [](const StageCost& cost, const fs::path& parent, bool done) {
    const std::vector<StageCost> left =
        remaining_cost({.stages = {cost}}, parent, done ? std::vector{cost.name} : std::vector<std::string>()).stages;
    return left.empty() ? StageCost{.name = cost.name, .kind = cost.kind} : left[0];
  };
  plan.data = rest(plan.data, root, false);
  for (size_t d = 0; d < holders.size(); ++d) {
    DistinctStage& distinct = plan.stages[d];
    const Stage& stage = ablation.runs[distinct.run].recipe.stages[distinct.stage];
    if (!holders[d].done) {
      check_device_fits(stage, distinct.cost);
      distinct.cost = placed_cost(stage, distinct.cost);
    }
    distinct.cost = rest(distinct.cost, (root / holders[d].folder).parent_path(), holders[d].done);
  }
  check_fits(ablation_cost(plan, jobs), root);
}

void link_sharers(const fs::path& root, const Ablation& ablation, size_t distinct, const AblationPlan& plan,
                  const Holder& holder) {
  const std::string& fingerprint = plan.stages[distinct].fingerprint;
  for (const ArmRun& run : ablation.runs)
    for (size_t s = 0; s < run.stages.size(); ++s) {
      if (run.stages[s] != distinct) continue;
      const Stage& stage = run.recipe.stages[s];
      const fs::path folder = root / slot(run, s);
      const std::optional<Link> link = find_link(folder);
      const bool holds = slot(run, s) == holder.folder, shares = holder.done && !holds;
      if (shares && link == Link{.fingerprint = fingerprint, .same_as = holder.folder}) continue;
      if (link || shares) fs::remove_all(folder);  // no longer true, or begun and then finished elsewhere
      if (shares) write_same_as(folder, stage.name, stage.kind, fingerprint, holder.folder);
    }
}

}  // namespace coppice
