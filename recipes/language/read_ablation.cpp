#include <fmt/format.h>

#include <algorithm>

#include "recipes/language/recipe_reading.h"

namespace coppice {

void read_ablation(OptionTable& root, Recipe& recipe) {
  if (std::ranges::none_of(kAblationKeys, [&](const std::string& key) { return root.has(key); })) return;
  std::vector<int64_t> seeds;
  root.take("seeds", seeds, "each arm runs once with each");
  for (const int64_t seed : seeds) {
    check(seed > 0, root.where("seeds"), fmt::format("seeds: got {}, expected numbers from 1", seed));
    check(std::ranges::find(recipe.seeds, static_cast<uint64_t>(seed)) == recipe.seeds.end(), root.where("seeds"),
          fmt::format("seeds: {} is given twice", seed));
    recipe.seeds.push_back(static_cast<uint64_t>(seed));
  }
  root.take("reference", recipe.reference, "the arm that the others are compared with; default the first");
  root.take("compare", recipe.compare, "stages whose models the tables compare; default the last one evaluated");
  // names beside the arms in the run folder
  std::vector<std::string> reserved = {"ablation.html", "ablation.md", "ablation.csv", "ablation.json", "ablation.svg"};
  reserved.insert(reserved.end(), kRunFiles.begin(), kRunFiles.end());
  std::vector<std::string> names;
  for (OptionTable table : root.tables("arm")) {
    ArmOptions arm{.where = table.where()};
    table.take("name", arm.name, "the arm's folder and its name in tables");
    check(table.has("name"), arm.where, "[[arm]] without a name");
    check_name(arm.name, table.where("name"), "arm");
    check(std::ranges::find(reserved, arm.name) == reserved.end(), table.where("name"),
          fmt::format("arm: '{}' is the name of something else in the run folder; choose another", arm.name));
    check(std::ranges::find(names, arm.name) == names.end(), table.where("name"),
          fmt::format("arm: '{}' is given twice", arm.name));
    table.take("reference", arm.reference, "the arm that this one is compared with; default the recipe's reference");
    arm.set = table.overrides("set");
    table.take("drop", arm.drop, "stages that this arm does without");
    table.finish();
    for (const Override& override : arm.set) {
      const std::string first = override.path.substr(0, override.path.find('.'));
      const bool shared = std::ranges::find(kTopLevelKeys, first) != kTopLevelKeys.end() && first != "model";
      check(!shared, override.where,
            fmt::format("arm '{}' sets {}: what is shared by all arms cannot differ between them; an arm sets keys of "
                        "stages and of [model.*]",
                        arm.name, override.path));
    }
    names.push_back(arm.name);
    recipe.arms.push_back(arm);
  }
  if (!recipe.reference.empty() && !names.empty())
    check_choice(recipe.reference, names, root.where("reference"), "reference");
  for (const ArmOptions& arm : recipe.arms)
    if (!arm.reference.empty()) check_choice(arm.reference, names, arm.where, "reference");
}

}  // namespace coppice
