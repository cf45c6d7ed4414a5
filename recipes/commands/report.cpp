#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "recipes/ablation/ablation.h"
#include "recipes/commands/verbs.h"
#include "recipes/report/ablation_report.h"
#include "recipes/run/collect_report.h"

namespace coppice {
namespace {

void rebuild_report(const std::filesystem::path& root) {
  const bool ablation = std::filesystem::exists(root / "recipe.toml") && !load_recorded_recipe(root).arms.empty();
  const std::string verdict = ablation ? write_ablation_report(root) + "\n" : write_report(root);
  fmt::print("{}\n{}, .md, .json\n", verdict,
             ablation ? "tables: " + (root / "ablation.html").string() : "report: " + (root / "report.html").string());
}

}  // namespace

void add_report(CLI::App& app, Action& action) {
  const auto folder = std::make_shared<std::string>();
  CLI::App* report =
      add_verb(app, "report", "rebuild the report of a run, or the tables of an ablation, from what it left",
               "coppice report runs/demo");
  report->add_option("run", *folder, "run folder")->required();
  report->callback([folder, &action] { action = [folder] { rebuild_report(*folder); }; });
}

}  // namespace coppice
