// Calibration and copying from the rows of an evaluate stage to the report, beside a row of before they were computed;
// what the program leaves.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "recipes/report/ablation_report.h"
#include "recipes/report/report_probes.h"
#include "recipes/run/collect_report.h"
#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;
using nlohmann::json;

namespace {

/// As stages finished before there were probes.
json old_row(const std::string& name, double loss) {
  const json scores = {{"loss", loss}, {"bits_per_byte", loss / 2}, {"accuracy", 0.25}, {"teacher_agreement", 0.5}};
  json row = scores;
  row.update({{"name", name},
              {"parameters", 1000},
              {"intermediate_size", {8, 8}},
              {"positions", 40000},
              {"domains", {{"prose", scores}}}});
  return row;
}

json new_row(const std::string& name, double loss) {
  json row = old_row(name, loss);
  row.update({{"ece", 0.0623},
              {"temperature", 1.75},
              {"calibrated_loss", loss - 0.5},
              {"copying_accuracy", 0.375},
              {"copying",
               {{{"distance", 8}, {"positions", 448}, {"accuracy", 0.5}, {"loss", 2.25}},
                {{"distance", 16}, {"positions", 480}, {"accuracy", 0.25}, {"loss", 4.5}}}}});
  return row;
}

Report report_of(const std::vector<json>& rows) {
  Report report{.recipe = "probes"};
  for (const json& row : rows) report.models.push_back(scored_model(row));
  return report;
}

const ReportTable* find_table(const std::vector<ReportTable>& tables, const std::string& title) {
  const auto found = std::ranges::find(tables, title, &ReportTable::title);
  return found == tables.end() ? nullptr : &*found;
}

std::string cell(const ReportTable& table, size_t row, const std::string& column) {
  const auto found = std::ranges::find(table.header, column);
  return found == table.header.end() ? "no such column"
                                     : table.rows.at(row).at(static_cast<size_t>(found - table.header.begin()));
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("probes: the model table shows them, and a dash for a model of before") {
    const Report report = report_of({old_row("old", 3.0), new_row("new", 4.2)});
    const std::vector<ReportTable> tables = report_tables(report);
    const ReportTable* models = find_table(tables, "Models");
    REQUIRE(models != nullptr);
    for (const auto& [column, shown] : {std::pair{"loss at fitted T", "3.700"},
                                        {"T", "1.75"},
                                        {"ECE", "6.2%"},
                                        {"copying", "37.5%"},
                                        {"agreement", "50.0%"}}) {
      CHECK(cell(*models, 1, column) == shown);
      if (std::string(column) != "agreement") CHECK(cell(*models, 0, column) == "\u2013");
    }
    CHECK(cell(*models, 1, "loss") == "4.200");
    CHECK(contains(models->note, "one temperature for all logits"));
    const ReportTable* copying = find_table(tables, "Copying by distance");
    REQUIRE(copying != nullptr);
    CHECK(copying->header == std::vector<std::string>{"model", "8", "16"});
    CHECK(copying->rows[0] == std::vector<std::string>{"old", "\u2013", "\u2013"});
    CHECK(copying->rows[1] == std::vector<std::string>{"new", "50.0% (2.25)", "25.0% (4.50)"});
    const std::string html = report_html(report), markdown = report_markdown(report);
    for (const char* words : {"loss at fitted T", "Copying by distance", "50.0% (2.25)"}) {
      CHECK(contains(html, words));
      CHECK(contains(markdown, words));
    }
    CHECK_FALSE(contains(html, "nan"));
  }

  TEST_CASE("probes: a run of before them has a report without a word of them") {
    const Report report = report_of({old_row("a", 3.0), old_row("b", 3.5)});
    const std::string text = report_markdown(report) + report_json(report);
    for (const char* word : {"fitted", "ECE", "ece", "temperature", "opying"}) CHECK_FALSE(contains(text, word));
    CHECK(find_table(report_tables(report), "Models")->rows.size() == 2);
  }

  TEST_CASE("probes: report.json has the numbers of the stage's row, and none that is absent") {
    const json parsed = json::parse(report_json(report_of({old_row("old", 3.0), new_row("new", 4.2)})));
    const json &old = parsed["models"][0], &fresh = parsed["models"][1], row = new_row("new", 4.2);
    for (const char* key : {"ece", "temperature", "calibrated_loss", "copying_accuracy", "copying"}) {
      CHECK(fresh.at(key) == row.at(key));
      CHECK_FALSE(old.contains(key));
      CHECK_FALSE(fresh["domains"]["prose"].contains(key));
    }
    // a loss that was no number is null in the row
    json broken = new_row("broken", 4.2);
    broken["ece"] = broken["calibrated_loss"] = broken["copying"][0]["loss"] = nullptr;
    const json read = json::parse(report_json(report_of({broken})))["models"][0];
    CHECK_FALSE(read.contains("ece"));
    CHECK_FALSE(read["copying"][0].contains("loss"));
    CHECK(read["copying"][0]["accuracy"] == 0.5);
  }

  TEST_CASE("probes: the table that the verdict rests on says how much of a worse loss is sharpness") {
    Report report = report_of({old_row("dense", 3.0), new_row("pruned", 3.3), new_row("long", 3.6)});
    report.models[0].role = "source";
    report.models[1].role = "pruned";
    report.models[2].role = "student";
    report.stages = {{.name = "dense"}, {.name = "pruned", .from = "dense"}, {.name = "long", .from = "pruned"}};
    const ReportTable table = comparisons_table(report);
    const auto fitted_loss = [&](std::string_view model) {
      for (size_t row = 0; row < table.rows.size(); ++row)
        if (cell(table, row, "model").starts_with(model)) return cell(table, row, "loss at fitted T");
      return fmt::format("no row of {}", model);
    };
    CHECK(fitted_loss("long") == "3.100");
    CHECK(fitted_loss("pruned") == "2.800");
    CHECK(fitted_loss("dense") == "\u2013");
  }

  TEST_CASE("probes: an ablation compares them over seeds") {
    AblationReport report{.recipe = "arms", .seeds = {1, 2}};
    Comparison comparison{.stage = "core", .title = "After recovery: core"};
    for (const auto& [name, loss] : {std::pair{"plain", 3.0}, {"labels", 4.0}}) {
      ReportArm arm{.name = name, .reference = "plain"};
      for (const double more : {0.0, 0.02}) arm.models.push_back(scored_model(new_row("core", loss + more)));
      arm.costs.resize(2);
      comparison.arms.push_back(std::move(arm));
    }
    report.comparisons.push_back(comparison);
    const std::vector<ReportTable> tables = ablation_tables(report, comparison);
    CHECK(cell(*find_table(tables, "Quality"), 1, "loss at fitted T") == "3.510 \u00b1 0.014");
    CHECK(cell(*find_table(tables, "Quality"), 1, "ECE") == "6.2% \u00b1 0.0");
    CHECK(contains(ablation_csv(report), "task_accuracy,calibrated_loss,ece,copying_accuracy"));
    const json arm = json::parse(ablation_json(report))["comparisons"][0]["arms"][1];
    CHECK(arm["calibrated_loss"]["mean"].get<double>() == doctest::Approx(3.51));
    CHECK(arm["calibrated_loss"]["difference"].get<double>() == doctest::Approx(1.0));
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("probes: what an evaluation leaves, whatever the size of its passes") {
    const Scratch scratch("probes");
    write_run(scratch.path, "small.toml");
    const Outcome done = run(scratch.path, {"run", "small.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const json models = json::parse(slurp(scratch.path / "runs/small/report.json"))["models"];
    REQUIRE(models.size() == 2);
    for (const json& model : models) {
      CHECK(model["ece"].get<double>() > 0);
      CHECK(model["ece"].get<double>() < 1);
      CHECK(model["temperature"].get<double>() >= 0.5);
      CHECK(model["temperature"].get<double>() <= 8);
      // one number fitted on half of 4096 tokens costs the other half next to nothing
      CHECK(model["calibrated_loss"].get<double>() < model["loss"].get<double>() + 0.01);
      CHECK(model["calibrated_loss"].get<double>() > 0);
      REQUIRE(model["copying"].size() == 3);
      double accuracy = 0;
      for (size_t i = 0; i < 3; ++i) {
        CHECK(model["copying"][i]["distance"] == 8 << i);
        CHECK(model["copying"][i]["positions"] == (64 >> i) * ((8 << i) - 1));
        CHECK(model["copying"][i]["loss"].get<double>() > 0);
        accuracy += model["copying"][i]["accuracy"].get<double>() / 3;
      }
      CHECK(model["copying_accuracy"].get<double>() == doctest::Approx(accuracy));
      CHECK(model["copying_accuracy"].get<double>() < 0.2);  // 16 steps teach no looking back
    }
    const Outcome other = run(scratch.path, {"run", "small.toml", "--set", "scores.batch_tokens=192", "--out", "b"});
    INFO(other.err);
    REQUIRE(other.code == 0);
    const json again = json::parse(slurp(scratch.path / "b/report.json"))["models"];
    for (size_t i = 0; i < 2; ++i)
      for (const char* key : {"loss", "calibrated_loss", "temperature"})
        CHECK(again[i][key].get<double>() == doctest::Approx(models[i][key].get<double>()).epsilon(1e-5));
  }
}
