#include "recipes/report/report.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "recipes/report/report_charts.h"
#include "recipes/report/report_tables.h"

using namespace coppice;
using nlohmann::json;

namespace {

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

size_t count(const std::string& text, std::string_view part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

ReportModel model(std::string name, std::string role, double loss, double accuracy, double training_tokens = 0,
                  int64_t positions = 40000) {
  return {.name = std::move(name),
          .role = role,
          .parameters = role == "source" ? 800000 : 400000,
          .intermediate_size = {role == "source" ? 768 : 256, role == "source" ? 768 : 256},
          .training_tokens = training_tokens,
          .positions = positions,
          .score = {.loss = loss, .bits_per_byte = loss / 2, .accuracy = accuracy, .teacher_agreement = accuracy * 2}};
}

ReportStage trained(std::string name, std::string from, StagePurpose purpose, double tokens, int steps = 20) {
  ReportStage stage{.name = std::move(name),
                    .kind = "train",
                    .from = std::move(from),
                    .purpose = purpose,
                    .tokens = tokens,
                    .seconds = 12,
                    .checkpoint_stall_s = 0.25,
                    .predicted_seconds = 10,
                    .flops = 6e5 * tokens};
  for (int i = 1; i <= steps; ++i) {
    std::map<std::string, double> line = {
        {"step", i},  {"tokens", tokens * i / steps}, {"loss", 4.0 + 1.0 / i}, {"ce", 3.5 + 1.0 / i},
        {"lr", 0.01}, {"grad_norm", 1.0 / i}};
    if (i % 5 == 0) line["heldout_loss"] = 3.6 + 1.0 / i;
    stage.metrics.push_back(line);
  }
  return stage;
}

/// A whole small run with names that try to break out of every format.
Report sample() {
  Report report{.recipe = "demo <script>alert(1)</script>"};
  report.stages = {trained("dense", "", StagePurpose::source, 1e6),
                   trained("masks", "dense", StagePurpose::method, 1e5),
                   {.name = "pruned", .kind = "prune", .from = "masks", .seconds = 0.5},
                   trained("core|<b>&", "pruned", StagePurpose::method, 2e5),
                   trained("long", "core|<b>&", StagePurpose::method, 1e5),
                   trained("scratch", "", StagePurpose::comparison, 3e5)};
  report.stages[1].kind = "learn_masks";
  for (size_t i = 0; i < 20; ++i) {
    auto& line = report.stages[1].metrics[i];
    line["heldout_hard_loss"] = 3.9 - 0.02 * static_cast<double>(i);
    line["heldout_random_loss"] = 3.95;
    for (int layer = 0; layer < 2; ++layer) {
      line[fmt::format("kept_share.{}", layer)] = 1.0 - 0.03 * static_cast<double>(i);
      line[fmt::format("sharpness.{}", layer)] = 0.4 + 0.03 * static_cast<double>(i);
      line[fmt::format("churn.{}", layer)] = i == 0 ? NAN : 0.1;
    }
  }
  report.models = {model("dense", "source", 3.0, 0.33, 1e6), model("pruned", "pruned", 3.3, 0.27),
                   model("core|<b>&", "student", 3.4, 0.31, 2e5), model("long", "student", 3.2, 0.30, 3e5),
                   model("scratch", "scratch", 4.2, 0.12, 3e5)};
  for (ReportModel& each : report.models) each.domains = {{"prose", each.score}, {"<i>code", each.score}};
  for (ReportModel& each : report.models) {
    each.tasks["<u>words"] = {.acc = each.score.accuracy, .acc_norm = 0.5, .stderr_of_acc = 0.021, .items = 200};
    each.score.task_accuracy = each.score.accuracy;
  }
  report.masks = mask_series(report.stages[1].metrics);
  report.masks.stage = "masks";
  report.masks.num_channels = 768;
  report.masks.num_kept = 256;
  report.masks.overlap = {{"magnitude", 0.45}, {"random", 0.33}};
  report.masks.soft_loss = 3.25;
  report.masks.hard_loss = 3.3;
  report.checks = {{.name = "masked against pruned <logits>", .text = "2.1e-07 (limit 1e-05)"},
                   {.name = "tokenizer", .text = "ids differ", .passed = false}};
  report.versions = {{"coppice", "0.1.0"}};
  report.machine = {{"cpu", "2 \"cores\""}};
  return report;
}

/// Open and close tags match, attributes aside: enough to see an unescaped name or a forgotten end.
std::string first_unbalanced(const std::string& markup) {
  std::vector<std::string> open;
  for (size_t at = markup.find('<'); at != std::string::npos; at = markup.find('<', at + 1)) {
    const size_t end = markup.find('>', at);
    if (end == std::string::npos) return "unclosed tag";
    const std::string tag = markup.substr(at + 1, end - at - 1);
    if (tag.starts_with("!DOCTYPE") || tag.ends_with("/")) continue;
    const std::string name =
        tag.substr(tag.starts_with("/") ? 1 : 0, tag.find_first_of(" \n") - (tag.starts_with("/") ? 1 : 0));
    if (!tag.starts_with("/")) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return "</" + name + "> at " + std::to_string(at);
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

}  // namespace

/// Figures of one model in one program over turns within a sixty-fourth of the median.
ReportSpeed speed(std::string name, std::string program, double decode, std::string type = "F32") {
  return {.model = std::move(name),
          .program = program,
          .file = program == "coppice" ? "" : fmt::format("<{}>|.gguf", type),
          .type = std::move(type),
          .conditions = fmt::format("a prompt of 64 tokens, {}", program),
          .file_bytes = 4e6,
          .prefill = {.median = 4 * decode, .low = 3.75 * decode, .high = 4.25 * decode},
          .decode = {.median = decode, .low = 63 * decode / 64, .high = 65 * decode / 64},
          .peak_bytes = 5e6};
}

TEST_SUITE("unit") {
  TEST_CASE("verdict: three short sentences, and the numbers in a table") {
    const Report report = sample();
    const std::vector<std::string> sentences = verdict_sentences(report);
    REQUIRE(sentences.size() == 3);
    CHECK(sentences[0] == "The student 'long' keeps 91% of its source's accuracy with 50% of its parameters.");
    CHECK(sentences[1] ==
          "It beats training the same shape from scratch and its own start right after the cut by loss, accuracy and "
          "agreement.");
    // 1e6 tokens against 4e5, the same FLOPs a token
    CHECK(sentences[2] ==
          "The source's own training, 2.5 times the method's FLOPs, is not counted; one run cannot tell what another "
          "seed would do.");
    CHECK(verdict_of(report) == sentences[0] + " " + sentences[1] + " " + sentences[2]);

    const ReportTable table = comparisons_table(report);
    CHECK(table.header == std::vector<std::string>{"against", "model", "parameters", "trained on", "loss", "accuracy",
                                                   "agreement", "outcome"});
    REQUIRE(table.rows.size() == 4);
    CHECK(table.rows[0] ==
          std::vector<std::string>{"(judged)", "long", "400k", "300k", "3.200", "30.0%", "60.0%", "\u2013"});
    CHECK(table.rows[1] == std::vector<std::string>{"training the same shape from scratch", "scratch", "400k", "300k",
                                                    "4.200", "12.0%", "24.0%", "better"});
    CHECK(table.rows[2] == std::vector<std::string>{"its own start right after the cut", "pruned", "400k", "0", "3.300",
                                                    "27.0%", "54.0%", "better"});
    CHECK(table.rows[3] ==
          std::vector<std::string>{"the source", "dense", "800k", "1.00M", "3.000", "33.0%", "66.0%", "worse"});

    // as a terminal, a page and a program see it
    const std::string text = verdict_text(report);
    CHECK(text.starts_with(sentences[0] + "\n" + sentences[1] + "\n" + sentences[2] + "\n\nagainst "));
    CHECK(contains(text, "\ntraining the same shape from scratch  scratch        400k"));
    CHECK(text.ends_with("worse\n"));
    CHECK(contains(report_markdown(report),
                   "| its own start right after the cut | pruned | 400k | 0 | 3.300 | 27.0% | 54.0% | better |"));
    CHECK(contains(report_markdown(report), "**" + sentences[0] + "** " + sentences[1] + " " + sentences[2] + "\n\n|"));
    CHECK(contains(report_html(report), "<td class=\"t\">its own start right after the cut</td>"));
    CHECK(contains(report_html(report), "<p class=\"first\">The student &#39;long&#39; keeps 91%"));
    CHECK(contains(report_html(report), "<p>It beats training the same shape"));
    const json parsed = json::parse(report_json(report));
    CHECK(parsed.at("verdict") == verdict_of(report));
    CHECK(parsed.at("judged") == "long");
    CHECK(parsed.at("comparisons").at(0) == json{{"judged", "long"},
                                                 {"against", "training the same shape from scratch"},
                                                 {"model", "scratch"},
                                                 {"evidence", true},
                                                 {"outcome", "better"},
                                                 {"by_loss", "better"},
                                                 {"by_accuracy", "better"},
                                                 {"by_agreement", "better"}});
  }

  TEST_CASE("verdict: what speaks against the student is said first and by name, and so is a cut that others beat") {
    Report report = sample();
    report.models.back() = model("scratch", "scratch", 3.0, 0.35, 3e5);
    report.models.push_back(model("magnitude", "magnitude", 3.1, 0.29));
    const std::vector<std::string> sentences = verdict_sentences(report);
    REQUIRE(sentences.size() == 3);
    CHECK(sentences[1] ==
          "It loses to training the same shape from scratch by loss, accuracy and agreement; it wins only in part "
          "against a cut by magnitude; it beats its own start right after the cut by loss, accuracy and agreement.");
    CHECK(sentences[2].starts_with(
        "Before training its cut loses to a cut by magnitude by loss, accuracy and agreement; the source's own "
        "training"));
    const ReportTable table = comparisons_table(report);
    REQUIRE(table.rows.size() == 5);
    CHECK(table.rows[1] == std::vector<std::string>{"training the same shape from scratch", "scratch", "400k", "300k",
                                                    "3.000", "35.0%", "70.0%", "worse"});
    CHECK(table.rows[3] == std::vector<std::string>{"a cut by magnitude", "magnitude", "400k", "0", "3.100", "29.0%",
                                                    "58.0%", "better by accuracy and agreement, worse by loss"});
    CHECK(table.rows[4][0] == "the source");
    // the cuts themselves stand below
    const std::vector<ReportTable> tables = report_tables(report);
    const auto cuts = std::ranges::find(tables, "The cut before training", &ReportTable::title);
    REQUIRE(cuts != tables.end());
    REQUIRE(cuts->rows.size() == 2);
    CHECK(cuts->rows[0] ==
          std::vector<std::string>{"(the cut)", "pruned", "400k", "0", "3.300", "27.0%", "54.0%", "\u2013"});
    CHECK(cuts->rows[1] ==
          std::vector<std::string>{"a cut by magnitude", "magnitude", "400k", "0", "3.100", "29.0%", "58.0%", "worse"});
    CHECK(json::parse(report_json(report)).at("comparisons").size() == 5);
  }

  TEST_CASE("verdict: mixed evidence, ties within noise, unequal tokens, trained one-shot cuts") {
    Report report = sample();
    report.models.back() = model("scratch", "scratch", 3.1, 0.25, 9e5);  // better loss, worse accuracy, more tokens
    report.models.push_back(
        model("plain", "plain", 3.205, 0.301, 3e5));  // noise at 40000 positions: 0.01 nats, 0.65 points
    report.models.push_back(model("random", "random", 3.6, 0.25, 3e5));
    report.models.push_back(model("untrained", "random", 3.9, 0.2));  // there is a trained one to hold it against
    const auto outcome = [&](const std::string& name) {
      for (const auto& row : comparisons_table(report).rows)
        if (row[1] == name) return row.back();
      return std::string();
    };
    CHECK(verdict_sentences(report)[1] ==
          "It wins only in part against training the same shape from scratch (on 900k tokens, not 300k); it is no "
          "different, within noise, from training without teacher labels; it beats its own start right after the cut "
          "and the same training after a cut by random by loss, accuracy and agreement.");
    CHECK(outcome("scratch") == "better by accuracy and agreement, worse by loss");
    CHECK(outcome("plain") == "within noise");
    CHECK(outcome("untrained") == "");
    // The same differences on a hundred times as much text are no noise: loss is better, accuracy worse.
    for (ReportModel& each : report.models) each.positions = 4000000;
    CHECK(outcome("plain") == "better by loss, worse by accuracy and agreement");
  }

  TEST_CASE("verdict: agreement is evidence like loss and accuracy, but not with oneself") {
    Report report = sample();
    report.models[1].score.teacher_agreement = 0.7;  // its own start, better than it in this alone
    CHECK(contains(verdict_of(report), "It wins only in part against its own start right after the cut;"));
    report.models[1].score = report.models[3].score;
    report.models[1].score.teacher_agreement = 0.7;
    CHECK(contains(verdict_of(report), "It loses to its own start right after the cut by agreement;"));
    report.models[1].score.teacher_agreement = 1;
    CHECK(contains(verdict_of(report), "It is no different, within noise, from its own start right after the cut;"));
  }

  TEST_CASE(
      "verdict: every one-shot score of the table is held against student and cut; many wins are counted, losses "
      "named") {
    Report report = sample();
    const std::vector<const char*> scores = {"magnitude", "activation", "wanda_sp", "flap",
                                             "taylor",    "random",     "first_k"};
    for (const char* score : scores) report.models.push_back(model(score, score, 3.5, 0.2));
    const auto is_row = [&](const std::string& words) {
      return std::ranges::any_of(comparisons_table(report).rows, [&](const auto& row) { return row[0] == words; });
    };
    for (const char* score : scores) CHECK(is_row(fmt::format("a cut by {}", score)));
    CHECK(verdict_sentences(report)[1] == "It beats all 9 that it is held against by loss, accuracy and agreement.");
    CHECK_FALSE(contains(verdict_of(report), "Before training"));
    report.models.back().score = {.loss = 3.0, .accuracy = 0.4};  // nobody asked whom it agrees with
    CHECK(verdict_sentences(report)[1] ==
          "It loses to a cut by first_k by loss and accuracy; it beats 8 of the 9 that it is held against by loss, "
          "accuracy and agreement.");
    CHECK(contains(verdict_of(report), "Before training its cut loses to a cut by first_k by loss and accuracy; "));
  }

  TEST_CASE("verdict: the order of models and stages does not matter, the chain of stages does") {
    Report report = sample();
    const std::string verdict = verdict_of(report);
    std::ranges::reverse(report.models);
    std::ranges::reverse(report.stages);
    CHECK(verdict_of(report) == verdict);
    // a student that goes on is not judged, though its loss be lower; of two that end, the better by loss is
    for (ReportModel& each : report.models)
      if (each.name == "core|<b>&") each.score.loss = 2.0;
    CHECK(judged_model(report)->name == "long");
    report.models.push_back(model("other", "student", 3.1, 0.29, 3e5));
    CHECK(judged_model(report)->name == "other");
    CHECK(contains(verdict_of(report), "only in part against the student 'long'"));
    CHECK_FALSE(contains(verdict_of(report), "core"));  // which goes on to it
    // what is exported is what the run is for, whatever came out
    report.stages.push_back({.name = "release", .kind = "export", .from = "long"});
    CHECK(judged_model(report)->name == "long");
    CHECK(contains(verdict_of(report), "only in part against the student 'other'"));
  }

  TEST_CASE("verdict: only models of one size are evidence, and only those scored on the same windows") {
    Report report = sample();
    report.models.back().parameters = 500000;  // from scratch, but larger
    CHECK_FALSE(contains(verdict_of(report), "from scratch and"));
    CHECK(contains(verdict_of(report), "It beats its own start right after the cut by"));
    report = sample();
    for (ReportModel& each : report.models) each.evaluation = each.name == "scratch" ? "other" : "scores";
    CHECK_FALSE(contains(verdict_of(report), "training the same shape from scratch"));
    for (const ReportComparison& row : comparisons_of(report)) CHECK(row.other->evaluation == "scores");
  }

  TEST_CASE("verdict: other runs have something true to say") {
    const auto of = [](std::vector<ReportModel> models, std::vector<ReportStage> stages = {}) {
      Report report;
      report.models = std::move(models);
      report.stages = std::move(stages);
      return verdict_of(report);
    };
    CHECK(of({model("dense", "source", 3.0, 0.33)}) ==
          "The source 'dense' has 800k parameters, a held-out loss of 3.000 and an accuracy of 33.0%. Nothing else has "
          "been scored, so it is held against "
          "nothing.");
    CHECK(of({model("b", "", 3.1, 0.3), model("a", "", 3.0, 0.33)}) ==
          "The model 'a' has 400k parameters, a held-out loss of 3.000 and an accuracy of 33.0%. Of 2 models scored it "
          "has the lowest loss; no other is a "
          "student.");
    // as wide as its source
    ReportModel control = model("core", "control", 2.9, 0.34, 1e5);
    control.parameters = 800000;
    const std::vector<ReportStage> cut = {trained("dense", "", StagePurpose::source, 1e6),
                                          {.name = "pruned", .kind = "prune", .from = "dense"},
                                          trained("core", "pruned", StagePurpose::method, 1e5)};
    const std::string no_cut = of({model("dense", "source", 3.0, 0.33), control}, cut);
    CHECK(no_cut.starts_with("The control 'core' keeps 103% of its source's accuracy with 100% of its parameters."));
    CHECK(contains(no_cut, "Nothing was cut: it is as wide as its source, a control for runs that cut."));
    // distilled into another shape, no cut anywhere
    const std::string distilled =
        of({model("dense", "source", 3.0, 0.33), model("small", "student", 3.2, 0.3, 1e5),
            model("fresh", "scratch", 3.4, 0.28, 1e5)},
           {trained("dense", "", StagePurpose::source, 1e6), trained("small", "", StagePurpose::method, 1e5)});
    CHECK(distilled.starts_with("The student 'small' keeps 91% of its teacher's accuracy with 50% of its parameters."));
    CHECK(contains(distilled, "It beats training the same shape from scratch by loss, accuracy and agreement."));
    // two one-shot cuts side by side: the better one is judged, and held against the other
    const std::string two = of({model("dense", "source", 3.0, 0.33), model("a", "activation", 3.3, 0.3, 1e5),
                                model("m", "magnitude", 3.5, 0.28, 1e5)},
                               cut);
    CHECK(two.starts_with("The model cut by activation 'a' keeps 91%"));
    CHECK(contains(two, "It beats the same training after a cut by magnitude by loss, accuracy and agreement."));
  }

  TEST_CASE("mask_chart: overlap over time with every choice, health and the three losses; only what was logged") {
    Report report = sample();
    const std::string before = mask_chart(report)->document("");
    for (const char* words : {"activation", "entropy", "saturated", "pruned<"}) CHECK_FALSE(contains(before, words));
    CHECK(contains(before, "soft mask"));
    for (size_t i = 0; i < 20; ++i) {
      auto& line = report.stages[1].metrics[i];
      line["entropy"] = 1.0 - 0.05 * static_cast<double>(i);
      line["saturated_share"] = 0.05 * static_cast<double>(i);
      line["outside_share"] = 0.1;
      if (i % 5 == 4)
        for (const char* name : {"activation", "magnitude", "random"}) line[std::string("overlap_") + name] = 0.4;
    }
    report.masks.pruned_loss = 3.31;
    report.masks.overlap.emplace_back("activation", 0.61);
    const std::string after = mask_chart(report)->document("");
    for (const char* words : {">activation<", "entropy, nats", "at 1 (saturated)", "outside the cut",
                              "kept channels that a score would keep too", "61%", ">pruned<", "3.310"})
      CHECK(contains(after, words));
    CHECK(count(after, "<polyline") == count(before, "<polyline") + 6);
    CHECK_FALSE(contains(after, "nan"));
    CHECK(contains(after, ">layer<"));
    report.masks.units = "layers", report.masks.unit = "layer", report.masks.per_layer = false;
    report.masks.layers.resize(1);
    const std::string of_layers = mask_chart(report)->document("");
    for (const char* words : {"256 of 768 layers<", "sum of the mask / layers", "share of kept layers exchanged",
                              "nats a kept layer", "at the end: kept layers that a score would keep too"})
      CHECK(contains(of_layers, words));
    CHECK_FALSE(contains(of_layers, ">layer<"));  // the one row is not layer 0
    CHECK_FALSE(contains(of_layers, "channel"));
  }

  TEST_CASE("verdict: scores on tuning text are said to be such, and give way to held-out text") {
    Report report = sample();
    for (ReportModel& each : report.models) each.split = "tuning";
    CHECK(verdict_sentences(report)[2].starts_with(
        "It is scored on the tuning text, by which options are chosen; the source's own"));
    CHECK(contains(report_markdown(report), " scored on |"));
    CHECK(contains(report_markdown(report), " tuning text |"));
    CHECK(json::parse(report_json(report))["models"][0]["split"] == "tuning");
    CHECK_FALSE(contains(report_markdown(sample()), "scored on |"));
    CHECK_FALSE(json::parse(report_json(sample()))["models"][0].contains("split"));
    // the same models once more, on held-out text and with a higher loss
    for (ReportModel& each : report.models) each.evaluation = "tuned";
    for (ReportModel each : sample().models) {
      each.evaluation = "scores";
      each.score.loss += 0.1;
      report.models.push_back(each);
    }
    CHECK(judged_model(report)->evaluation == "scores");
    CHECK(contains(report_markdown(report), " held-out text |"));
    for (const ReportComparison& row : comparisons_of(report)) CHECK(row.other->evaluation == "scores");
  }

  TEST_CASE("verdict: says what is missing") {
    CHECK(verdict_of({}) == "Nothing to judge yet: no model has been scored.");
    Report report;
    report.models = {model("cut", "pruned", 3.3, 0.2)};
    CHECK(verdict_of(report) ==
          "The pruned model 'cut' has 400k parameters, a held-out loss of 3.300 and an accuracy of 20.0%. Nothing it "
          "could be held against (from scratch, "
          "without labels, other cuts) has been scored. One run cannot tell what another seed would do.");
    CHECK(comparisons_table(report).rows.empty());
    report = sample();
    report.stages.back().status = "running";
    CHECK(verdict_of(report).starts_with("So far, the student 'long' keeps"));
    for (ReportModel& each : report.models) each.score = {};
    CHECK(verdict_of(report).starts_with("Nothing to judge yet"));
    // without an evaluate stage: what training saw
    CHECK(contains(verdict_of(report), "no model has been scored, and no stage of kind evaluate is there to do it."));
    CHECK(contains(verdict_of(report),
                   "Held-out loss at the end of training, each on a sample of its own: 'dense' at 3.650, "));
  }

  TEST_CASE("report_json: the fields of the run-folder format; absent numbers are left out") {
    Report report = sample();
    report.models[1].intermediate_size = {256, 128};
    report.stages[2].status = "missing";
    const json parsed = json::parse(report_json(report));
    CHECK(parsed.at("recipe") == "demo <script>alert(1)</script>");
    CHECK(parsed.at("verdict") == verdict_of(report));
    CHECK(parsed.at("stages").size() == 6);
    CHECK(parsed["stages"][0] == json{{"name", "dense"},
                                      {"kind", "train"},
                                      {"tokens", 1000000},
                                      {"seconds", 12.0},
                                      {"checkpoint_stall_s", 0.25},
                                      {"status", "done"},
                                      {"purpose", "source"},
                                      {"predicted_seconds", 10.0},
                                      {"flops", 6e11}});
    CHECK(parsed["stages"][0]["tokens"].is_number_integer());
    CHECK_FALSE(parsed["stages"][2].contains("tokens"));
    CHECK(parsed["stages"][2]["status"] == "missing");
    CHECK(parsed["models"][0]["intermediate_size"] == 768);
    CHECK(parsed["models"][1]["intermediate_size"] == json{256, 128});
    const json& student = parsed["models"][3];
    CHECK(student["name"] == "long");
    CHECK(student["parameters"] == 400000);
    CHECK(student["loss"] == 3.2);
    CHECK(student["bits_per_byte"] == 1.6);
    CHECK(student["accuracy"] == 0.3);
    CHECK(student["teacher_agreement"] == 0.6);
    CHECK(student["domains"]["<i>code"]["loss"] == 3.2);
    CHECK(student["task_accuracy"] == 0.3);
    CHECK(student["tasks"] == json{{"<u>words", {{"items", 200}, {"acc", 0.3}, {"acc_norm", 0.5}, {"stderr", 0.021}}}});
    CHECK_FALSE(student["domains"]["<i>code"].contains("task_accuracy"));
    CHECK_FALSE(student.contains("file_bytes"));
    CHECK(parsed["masks"]["layers"].size() == 2);
    CHECK(parsed["masks"]["layers"][0]["churn"][0].is_null());
    CHECK_FALSE(parsed["masks"].contains("pruned_loss"));
    CHECK(parsed["checks"][1]["passed"] == false);
    CHECK_NOTHROW(json::parse(report_json({})));
    report.recipe = "bad \xff utf-8";
    CHECK_NOTHROW(json::parse(report_json(report)));
  }

  TEST_CASE("refits: a table of layers and losses, and what of the cut's price came back") {
    Report report = sample();
    CHECK_FALSE(contains(report_markdown(report), "Refit"));
    CHECK_FALSE(json::parse(report_json(report)).contains("refits"));
    report.refits = {
        {.stage = "by_flap",
         .refitted = {{.layer = 0, .before = 0.5, .after = 0.4}, {.layer = 1, .before = 0.25, .after = 0.125}},
         .uncut_loss = 3.0,
         .cut_loss = 4.0,
         .refitted_loss = 3.25},
        {.stage = "<b>deep",
         .refitted = {{.layer = 0, .weight = "o_proj", .before = 0.3, .after = 0.2},
                      {.layer = 0, .weight = "down_proj", .before = 0.1, .after = 0.1}},
         .uncut_loss = 3,
         .cut_loss = 3}};
    const std::vector<ReportTable> tables = report_tables(report);
    const auto found = std::ranges::find(tables, "Refit", &ReportTable::title);
    REQUIRE(found != tables.end());
    CHECK(found->header == std::vector<std::string>{"layer", "by_flap", "<b>deep"});
    CHECK(found->rows ==
          std::vector<std::vector<std::string>>{{"0 o_proj", "\u2013", "30.0% \u2192 20.0%"},
                                                {"0 down_proj", "50.0% \u2192 40.0%", "10.0% \u2192 10.0%"},
                                                {"1 down_proj", "25.0% \u2192 12.5%", "\u2013"},
                                                {"loss, uncut", "3.0000", "3.0000"},
                                                {"loss, cut", "4.0000", "3.0000"},
                                                {"loss, refitted", "3.2500", "\u2013"},
                                                {"closed", "75.0%", "\u2013"}});
    const json refits = json::parse(report_json(report)).at("refits");
    CHECK(refits[0] == json{{"stage", "by_flap"},
                            {"uncut_loss", 3},
                            {"cut_loss", 4},
                            {"refitted_loss", 3.25},
                            {"closed", 0.75},
                            {"weights", {"0 down_proj", "1 down_proj"}},
                            {"before", {0.5, 0.25}},
                            {"after", {0.4, 0.125}}});
    CHECK_FALSE(refits[1].contains("closed"));
    CHECK(contains(report_html(report), "&lt;b&gt;deep"));
  }

  TEST_CASE("mask_series: reads the layers of the lines that have them") {
    const ReportMasks masks = mask_series(
        {{{"step", 1}, {"loss", 4}},
         {{"step", 2}, {"sharpness.0", 0.5}, {"sharpness.1", 0.6}, {"kept_share.0", 0.9}, {"kept_share.1", 0.8}},
         {{"step", 4}, {"sharpness.0", 0.7}, {"sharpness.1", 0.8}, {"churn.0", 0.1}, {"churn.1", 0.2}}});
    CHECK(masks.step == std::vector<double>{2, 4});
    REQUIRE(masks.layers.size() == 2);
    CHECK(masks.layers[1].sharpness == std::vector<double>{0.6, 0.8});
    CHECK(masks.layers[0].kept_share[0] == 0.9);
    CHECK(std::isnan(masks.layers[0].kept_share[1]));
    CHECK(std::isnan(masks.layers[1].churn[0]));
    CHECK(masks.layers[1].churn[1] == 0.2);
    CHECK(mask_series({}).layers.empty());
  }

  TEST_CASE("report_tables: sums by purpose; columns without a value are left out") {
    const std::vector<ReportTable> tables = report_tables(sample());
    const auto named = [&](const std::string& title) {
      for (const ReportTable& table : tables)
        if (table.title == title) return table;
      return ReportTable{};
    };
    const ReportTable stages = named("Stages");
    REQUIRE(stages.rows.size() == 9);
    CHECK(stages.num_totals == 3);
    CHECK(stages.rows[6][0] == "the method in all");
    CHECK(stages.rows[6][5] == "400k");
    CHECK(stages.rows[6][6] == "240 GFLOP");
    for (const ReportTable& table : tables) {
      CHECK(table.is_text.size() == table.header.size());
      for (const auto& row : table.rows) CHECK(row.size() == table.header.size());
      CHECK(std::ranges::find(table.header, "peak memory") == table.header.end());
    }
    CHECK(named("Loss by domain").header == std::vector<std::string>{"model", "all", "<i>code", "prose"});
    CHECK(named("Multiple choice").header ==
          std::vector<std::string>{"model", "mean", "<u>words (200 items)", "<u>words (200 items), per code point"});
    CHECK(named("Multiple choice").rows[3] == std::vector<std::string>{"long", "30.0%", "30.0% \u00b1 2.1", "50.0%"});
    CHECK(named("What the cut costs").rows.size() == 2);
    CHECK(flops_text(2.4e23) == "240 ZFLOP");
    CHECK(flops_text(999.96e9) == "1 TFLOP");
    CHECK(widths_text({3, 3, 3}) == "3");
    CHECK(widths_text({3, 2}) == "3, 2");
  }

  TEST_CASE("report_tables: sizes beside the FFN width are shown where models differ in them") {
    Report report = sample();
    const auto header = [&] { return report_tables(report).front().header; };
    const std::vector<std::string> before = header();
    for (ReportModel& each : report.models) {
      each.num_hidden_layers = 12;
      each.num_attention_heads = 8;
      each.num_key_value_heads = 4;
      each.hidden_size = 96;
    }
    const Report equal = report;
    CHECK(header() == before);
    CHECK_FALSE(contains(report_json(report), "num_hidden_layers"));
    report.models[1].num_hidden_layers = 9;
    report.models[2].num_key_value_heads = 0;  // not known
    std::vector<std::string> expected = before;
    expected.insert(std::ranges::find(expected, "FFN width") + 1, "layers");
    CHECK(header() == expected);
    const ReportTable table = report_tables(report).front();
    const auto column = std::ranges::find(table.header, "layers") - table.header.begin();
    CHECK(table.rows[0][static_cast<size_t>(column)] == "12");
    CHECK(table.rows[1][static_cast<size_t>(column)] == "9");
    CHECK(table.is_text.size() == table.header.size());
    const json parsed = json::parse(report_json(report));
    CHECK(parsed["models"][1]["num_hidden_layers"] == 9);
    CHECK_FALSE(parsed["models"][1].contains("hidden_size"));
    report = equal;
    report.models[4].hidden_size = 64;
    report.models[4].num_key_value_heads = 2;
    report.models[3].hidden_size = 0;
    const ReportTable sizes = report_tables(report).front();
    const auto heads = static_cast<size_t>(std::ranges::find(sizes.header, "key/value heads") - sizes.header.begin());
    REQUIRE(sizes.header[heads + 1] == "hidden size");
    CHECK(sizes.rows[4][heads] == "2");
    CHECK(sizes.rows[4][heads + 1] == "64");
    CHECK(sizes.rows[3][heads + 1] == "\u2013");
    CHECK_FALSE(json::parse(report_json(report))["models"][3].contains("hidden_size"));
  }

  TEST_CASE("report_markdown: tables hold whatever the names are") {
    const std::string text = report_markdown(sample());
    CHECK(text.starts_with("# Report of demo &lt;script>"));
    CHECK(contains(text, "![Loss curves, the mask over time and the models side by side](report.svg)"));
    CHECK(contains(text, "| core\\|&lt;b>&amp; | student |"));
    CHECK(contains(text, "FAILED"));
    size_t bars = 0;
    std::string line;
    for (const char c : text) {  // every table row has as many cells as its header
      if (c != '\n') {
        line += c;
        continue;
      }
      if (line.starts_with("|")) {
        const size_t cells = count(line, "|") - count(line, "\\|");
        if (bars != 0) CHECK(cells == bars);
        bars = cells;
      } else {
        bars = 0;
      }
      line.clear();
    }
  }

  TEST_CASE("report_html: stands alone, escapes every name, is balanced") {
    const std::string html = report_html(sample());
    CHECK(first_unbalanced(html) == "");
    CHECK_FALSE(contains(html, "<script"));
    CHECK(contains(html, "demo &lt;script&gt;alert(1)&lt;/script&gt;"));
    CHECK_FALSE(contains(html, "<b>"));
    CHECK_FALSE(contains(html, "<i>"));
    CHECK_FALSE(contains(html, "<u>"));
    CHECK(count(html, "http") ==
          count(html, "http-equiv") + count(html, "xmlns=\"http://www.w3.org/2000/svg\""));  // a name space, no request
    CHECK_FALSE(contains(html, "url("));
    CHECK_FALSE(contains(html, "src="));
    CHECK(contains(html, "default-src &#39;none&#39;") != contains(html, "default-src 'none'"));
    CHECK(contains(html, "prefers-color-scheme:dark"));
    CHECK(count(html, "<svg ") == 5);
    CHECK_FALSE(contains(html, "nan"));
    CHECK(contains(html, "<td class=\"t bad\">FAILED</td>"));
    CHECK(html == report_html(sample()));  // a pure function
  }

  TEST_CASE("report_svg: balanced, no number that is none, and as high as its parts") {
    const std::string svg = report_svg(sample());
    CHECK(first_unbalanced(svg) == "");
    CHECK_FALSE(contains(svg, "nan"));
    CHECK_FALSE(contains(svg, "inf"));
    CHECK(contains(svg, "core|&lt;b&gt;&amp; \u2192 long"));
    CHECK(contains(svg, "After the cut"));
    CHECK(contains(svg, "by chance 33%"));
  }

  TEST_CASE("drawings: half-finished, damaged and huge runs still draw") {
    CHECK(first_unbalanced(report_svg({})) == "");
    CHECK(first_unbalanced(report_html({})) == "");
    CHECK_FALSE(loss_chart({}).has_value());
    CHECK_FALSE(models_chart({}).has_value());

    Report report = sample();  // one line only, nothing finite, an empty mask
    report.stages[3].metrics = {{{"step", 1}, {"tokens", 512}, {"loss", 5.0}}};
    for (auto& line : report.stages[4].metrics) line["ce"] = line["heldout_loss"] = line["grad_norm"] = NAN;
    report.stages[5].metrics[3]["ce"] = INFINITY;
    report.masks.layers.clear();
    report.masks.step.clear();
    report.models[2].score = {};
    for (const std::string& text : {report_svg(report), report_html(report)}) {
      CHECK(first_unbalanced(text) == "");
      CHECK_FALSE(contains(text, "nan"));
    }

    report = sample();  // forty long stages, thirty layers
    for (int i = 0; i < 40; ++i)
      report.stages.push_back(trained(fmt::format("another_stage_with_a_long_name_{}", i),
                                      i == 0 ? "" : report.stages.back().name, StagePurpose::comparison, 1e4, 500));
    report.masks.layers.resize(30, report.masks.layers[0]);
    const std::string svg = report_svg(report);
    CHECK(first_unbalanced(svg) == "");
    CHECK(svg.size() < 2000000);
  }

  TEST_CASE("after_cut_chart: a source trained on without a cut is not in the race") {
    Report report = sample();
    report.stages.push_back(trained("uncut_control", "dense", StagePurpose::comparison, 1e5));
    const std::string race = after_cut_chart(report)->document("");
    CHECK(contains(race, ">scratch<"));
    CHECK(contains(race, ">dense at its end<"));
    CHECK_FALSE(contains(race, "uncut_control"));
    CHECK(contains(loss_chart(report)->document(""), "uncut_control"));
  }

  TEST_CASE("after_cut_chart: held-out losses that are not numbers do not tear the line") {
    Report report = sample();
    const size_t lines = count(after_cut_chart(report)->document(""), "<polyline");
    for (ReportStage& stage : report.stages)
      for (size_t i = 3; i < stage.metrics.size(); i += 5) stage.metrics[i]["heldout_loss"] = NAN;
    CHECK(count(after_cut_chart(report)->document(""), "<polyline") == lines);
    CHECK(lines == 3);  // core to long, scratch, the source's last loss
  }

  TEST_CASE("drawings: a stage that names itself as its start does not hang") {
    Report report = sample();
    report.stages[4].from = "long";
    report.stages.push_back(trained("after", "long", StagePurpose::method, 1e4));
    CHECK(first_unbalanced(report_svg(report)) == "");
    report.stages[3].from = "long";
    report.stages[4].from = report.stages[3].name;
    CHECK(first_unbalanced(report_svg(report)) == "");
  }

  TEST_CASE("speed: a table, a sentence and rows for programs, where it was measured") {
    Report report = sample();
    const std::string plain_json = report_json(report), plain_text = report_markdown(report);
    for (const std::string& text : {plain_json, plain_text, report_html(report)})
      for (const char* words : {"tokens/s", "peed"}) CHECK_FALSE(contains(text, words));
    // a file that nobody measured says nothing alone
    report.speeds = {{.model = "long", .file = "hf", .file_bytes = 1.5e6}};
    CHECK_FALSE(contains(report_markdown(report), "Speed and size"));

    report.speeds = {speed("dense", "coppice", 40),
                     speed("long", "coppice", 50),
                     speed("pruned", "coppice", 41),
                     speed("dense", "llama.cpp", 60),
                     speed("long", "llama.cpp", 61),
                     speed("long", "llama.cpp", 90, "Q8_0"),
                     {.model = "long", .file = "hf", .file_bytes = 1.5e6}};
    report.models[3].decode_tokens_per_s = 50;
    const std::vector<std::string> sentences = verdict_sentences(report);
    REQUIRE(sentences.size() == 3);
    CHECK(sentences[0] ==
          "The student 'long' keeps 91% of its source's accuracy with 50% of its parameters, and decodes 1.25x as fast "
          "in coppice (F32) and with no difference shown in llama.cpp (F32).");
    for (const size_t i : {1, 2}) CHECK(sentences[i] == verdict_sentences(sample())[i]);

    const std::string text = report_markdown(report);
    CHECK(contains(text,
                   "## Speed and size\n\n| model | role | program | file | weights | size | prompt tokens/s | new "
                   "tokens/s | memory | new tokens/s against its source |\n"));
    CHECK(contains(text,
                   "| long | student | coppice | \u2013 | F32 | 3.8 MiB | 200 (188 to 212) | 50.0 (49.2 to 50.8) | "
                   "4.8 MiB | 1.25x |\n"));
    CHECK(contains(text,
                   "| dense | source | llama.cpp | &lt;F32>\\|.gguf | F32 | 3.8 MiB | 240 (225 to 255) | 60.0 (59.1 "
                   "to 60.9) | 4.8 MiB | \u2013 |\n"));
    CHECK(contains(text, "| 61.0 (60.0 to 62.0) | 4.8 MiB | no difference shown |\n"));
    CHECK(contains(text, "| Q8\\_0 | 3.8 MiB | 360 (338 to 382) | 90.0 (88.6 to 91.4) | 4.8 MiB | \u2013 |\n"));
    CHECK(contains(text, "| long | student | \u2013 | hf | \u2013 | 1.4 MiB | \u2013 | \u2013 | \u2013 | \u2013 |\n"));
    CHECK(contains(text,
                   "In coppice: a prompt of 64 tokens, coppice; in llama.cpp: a prompt of 64 tokens, "
                   "llama.cpp."));
    CHECK(contains(text, "| decode tokens/s |"));  // of the table of models

    const std::string html = report_html(report);
    CHECK(first_unbalanced(html) == "");
    CHECK(contains(html, "<h2>Speed and size</h2>"));
    CHECK(contains(html, "<td class=\"t\">&lt;F32&gt;|.gguf</td>"));
    CHECK(contains(html, "<td>no difference shown</td>"));

    const json parsed = json::parse(report_json(report));
    REQUIRE(parsed.at("speeds").size() == 7);
    CHECK(parsed["speeds"][1] == json{{"model", "long"},
                                      {"program", "coppice"},
                                      {"type", "F32"},
                                      {"conditions", "a prompt of 64 tokens, coppice"},
                                      {"parameter_bytes", 4000000},
                                      {"prefill_tokens_per_s", 200.0},
                                      {"prefill_tokens_per_s_range", {187.5, 212.5}},
                                      {"decode_tokens_per_s", 50.0},
                                      {"decode_tokens_per_s_range", {49.21875, 50.78125}},
                                      {"peak_bytes", 5000000}});
    CHECK(parsed["speeds"][6] == json{{"model", "long"}, {"file", "hf"}, {"file_bytes", 1500000}});
    CHECK(parsed["models"][3]["decode_tokens_per_s"] == 50);

    // columns that nothing fills go
    for (ReportSpeed& each : report.speeds) each.peak_bytes = each.prefill.median = kAbsent;
    for (const char* words : {"| memory |", "prompt tokens/s"}) CHECK_FALSE(contains(report_markdown(report), words));
  }

  TEST_CASE("speed: compared are one type of weights under the same conditions, and what turns can tell apart") {
    Report report = sample();
    report.speeds = {speed("dense", "coppice", 40), speed("long", "coppice", 50, "BF16")};
    CHECK_FALSE(contains(verdict_of(report), "decode"));
    report.speeds[1].type = "F32";
    CHECK(contains(verdict_of(report), "parameters, and decodes 1.25x as fast in coppice (F32)."));
    report.speeds[1].conditions += ", 4 threads";
    CHECK_FALSE(contains(verdict_of(report), "decode"));
    report.speeds[1].conditions = report.speeds[0].conditions;
    report.speeds[1].decode.low = report.speeds[0].decode.high;  // they touch
    CHECK(contains(verdict_of(report), "and decodes with no difference shown in coppice (F32)."));
    report.speeds[1].decode.low = report.speeds[1].decode.high = kAbsent;
    CHECK(contains(verdict_of(report), "and decodes with no difference shown in coppice (F32)."));
    report.speeds = {speed("dense", "coppice", 40), speed("long", "coppice", 30), speed("dense", "llama.cpp", 40),
                     speed("long", "llama.cpp", 1500)};
    CHECK(contains(verdict_of(report),
                   "and decodes 0.75x as fast in coppice (F32) and 37.50x as fast in llama.cpp (F32)."));
  }
}
