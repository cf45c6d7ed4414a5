// Every loss of a training stage through the real program: a live teacher and its stored labels give the same weights,
// several processes share a labelling, and a recipe that asks for what a cache does not hold is refused before anything
// starts.
#include <doctest/doctest.h>

#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

/// The tiny recipe's data and models with a source and labels of its own; `stages` follow.
std::string recipe(const std::string& stages) {
  const std::string tiny = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/tiny.toml");
  const std::string head = tiny.substr(0, tiny.find("[[stage]]"));
  return head +
         "[[stage]]\nname = \"dense\"\nkind = \"train\"\nmodel = \"source\"\ntokens = 20480\nseq_len = "
         "64\nbatch_tokens = 512\nmicro_batch_tokens = 256\n\n" +
         stages;
}

std::string label_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name +
         "\"\nkind = \"label\"\nteacher = \"dense\"\ncontext = 64\nbatch_tokens = 256\n" + options + "\n\n";
}

std::string student_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name +
         "\"\nkind = \"train\"\nmodel = \"student\"\ntokens = 5120\nseq_len = 64\nbatch_tokens = "
         "512\nmicro_batch_tokens = 256\n" +
         options + "\n\n";
}

std::map<std::string, std::string> weights_of(const fs::path& model) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(model))
    if (entry.path().extension() == ".h5") files[entry.path().filename().string()] = slurp(entry.path());
  return files;
}

std::vector<nlohmann::json> metrics_of(const fs::path& stage) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(slurp(stage / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE(
      "distillation: a live teacher and its stored aligned labels give the same weights, bit for bit; every loss "
      "trains") {
    const Scratch scratch("distillation");
    write_corpus(scratch.path / "corpus");
    spill(
        scratch.path / "kd.toml",
        recipe(label_stage("labels", "window_rule = \"aligned\"") +
               label_stage("soft", "window_rule = \"aligned\"\ntier = \"topk\"\ntop_k = 16\ntemperature = 2.0") +
               label_stage("sure", "tier = \"top1_prob\"") + student_stage("cached", "labels = \"labels\"") +
               student_stage("live", "teacher = \"dense\"") +
               student_stage("top_k", "labels = \"soft\"\nloss = \"top_k\"\nkd_temperature = 2.0") +
               student_stage("prob", "labels = \"sure\"\nloss = \"top_k\"") +
               student_stage("live_top_k", "teacher = \"dense\"\nloss = \"top_k\"\ntop_k = 16\nkd_temperature = 2.0") +
               student_stage("from_soft", "labels = \"soft\"") +
               student_stage("kl", "teacher = \"dense\"\nloss = \"kl\"\nkd_temperature = 2.0\ndistil_from = 0.5") +
               student_stage("reverse", "teacher = \"dense\"\nloss = \"reverse_kl\"\nteacher_weight = 1.0") +
               student_stage("jsd", "teacher = \"dense\"\nloss = \"jsd\"\njsd_beta = 0.3\nteacher_weight_end = 0.1")));
    const Outcome outcome = run(scratch.path, {"run", "kd.toml"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const fs::path root = scratch.path / "runs/tiny";
    CHECK(!weights_of(root / "cached/model").empty());
    CHECK(weights_of(root / "cached/model") == weights_of(root / "live/model"));
    CHECK(weights_of(root / "cached/model") ==
          weights_of(root / "from_soft/model"));  // the first of k stored ids is the top-1 label
    CHECK(weights_of(root / "cached/model") != weights_of(root / "top_k/model"));
    for (const char* name : {"top_k", "prob", "live_top_k", "reverse", "jsd"}) {
      CAPTURE(name);
      const auto lines = metrics_of(root / name);
      REQUIRE(lines.size() == 10);
      CHECK(lines.front()["kd"].get<double>() > 0);
      CHECK(lines.back()["kd"].get<double>() < lines.front()["kd"].get<double>());
      CHECK(lines.back()["z_loss"].get<double>() > 0);
    }
    // what is stored is rounded to half precision
    CHECK(metrics_of(root / "top_k").front()["kd"].get<double>() ==
          doctest::Approx(metrics_of(root / "live_top_k").front()["kd"].get<double>()).epsilon(2e-3));
    const auto late = metrics_of(root / "kl");
    CHECK_FALSE(late[4].contains("kd"));
    CHECK(late[5].contains("kd"));
    const Outcome shown = run(scratch.path, {"inspect", "runs/tiny/soft/labels/code"});
    CHECK(shown.code == 0);
    CHECK(shown.out.find("tokens labelled") != std::string::npos);
  }

  TEST_CASE(
      "distillation: several teachers and hidden states; one labelling serves three trainings and comes back by export "
      "and import") {
    const Scratch scratch("teachers");
    write_corpus(scratch.path / "corpus");
    const std::string other =
        "[[stage]]\nname = \"early\"\nkind = \"train\"\nmodel = \"source\"\ntokens = 5120\nseq_len = 64\nbatch_tokens "
        "= 512\n\n";
    const std::string common =
        label_stage("labels", "") + other +
        "[[stage]]\nname = \"early_labels\"\nkind = \"label\"\nteacher = \"early\"\ncontext = 64\n\n";
    spill(scratch.path / "kd.toml",
          recipe(common + student_stage("one", "labels = \"labels\"") +
                 student_stage("two", "labels = [\"labels\", \"early_labels\"]\nteacher_shares = [3, 1]") +
                 student_stage("live_two", "teacher = [\"dense\", \"early\"]\nloss = \"kl\"") +
                 student_stage(
                     "states",
                     "teacher = \"dense\"\nhidden_loss = \"cosine\"\nhidden_layers = [1, 2]\nteacher_weight = 0.0") +
                 "[[stage]]\nname = \"other_shape\"\nkind = \"train\"\nmodel = \"student\"\ntokens = 4096\nseq_len = "
                 "32\nbatch_tokens = 1024\ndata_seed = 9\n"
                 "labels = \"labels\"\n\n"));
    const Outcome outcome = run(scratch.path, {"run", "kd.toml"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
    const fs::path root = scratch.path / "runs/tiny";
    const auto two = metrics_of(root / "two");
    CHECK(two.front()["kd"].get<double>() == doctest::Approx(0.75 * two.front()["kd.labels"].get<double>() +
                                                             0.25 * two.front()["kd.early_labels"].get<double>()));
    CHECK(metrics_of(root / "live_two").back().contains("kd.early"));
    const auto states = metrics_of(root / "states");
    CHECK(states.back()["hidden_loss"].get<double>() < states.front()["hidden_loss"].get<double>());
    CHECK(metrics_of(root / "other_shape").back()["kd"].get<double>() >
          0);  // other batch, length and seed read the same cache

    // out, and in again as a stage: the labels under every token are the same, and so are the weights
    for (const char* domain : {"prose", "code"})
      REQUIRE(run(scratch.path, {"labels", "export", std::string("given/") + domain + ".jsonl.zst", "--tokens",
                                 std::string("runs/tiny/data/tokens/") + domain, "--cache",
                                 std::string("runs/tiny/labels/labels/") + domain})
                  .code == 0);
    const std::string import_stage = "[[stage]]\nname = \"given\"\nkind = \"label\"\nimport = \"given\"\n\n";
    spill(scratch.path / "given.toml", recipe(import_stage + student_stage("one", "labels = \"given\"")));
    const Outcome imported = run(scratch.path, {"run", "given.toml", "--out", "runs/given"});
    INFO(imported.err);
    REQUIRE(imported.code == 0);
    CHECK(weights_of(scratch.path / "runs/given/one/model") == weights_of(root / "one/model"));
    CHECK(run(scratch.path, {"run", "given.toml", "--out", "runs/given"}).out.find("already complete") !=
          std::string::npos);
    fs::remove(scratch.path / "given/code.jsonl.zst");
    const Outcome missing = run(scratch.path, {"run", "given.toml", "--out", "runs/other"});
    CHECK(missing.code == 2);
    CHECK(missing.err.find("holds no code.jsonl") != std::string::npos);
  }

  TEST_CASE("distillation: what a stage asks for and cannot have is refused before anything starts") {
    const Scratch scratch("distillation_refused");
    write_corpus(scratch.path / "corpus");
    const auto refused = [&](const std::string& stages, const std::string& word) {
      spill(scratch.path / "kd.toml", recipe(label_stage("labels", "") + stages));
      const Outcome outcome = run(scratch.path, {"run", "kd.toml"});
      INFO(outcome.err);
      CHECK(outcome.code == 2);
      CHECK(outcome.err.find(word) != std::string::npos);
    };
    refused(student_stage("s", "labels = \"labels\"\nloss = \"kl\""), "whole distribution");
    refused(student_stage("s", "labels = \"labels\"\nloss = \"top_k\""), "stores tier top1");
    refused(label_stage("soft", "tier = \"topk\"") +
                student_stage("s", "labels = \"soft\"\nloss = \"top_k\"\nkd_temperature = 2.0"),
            "stores probabilities at 1");
    refused(student_stage("s", "labels = \"labels\"\nteacher = \"dense\""), "one or the other");
    refused(student_stage("s", "loss = \"jsd\""), "needs `labels` or `teacher`");
    refused(student_stage("s", "teacher = \"dense\"\nloss = \"jsd\"\njsd_beta = 1.0"), "jsd_beta");
    refused(student_stage("s", "teacher = \"dense\"\nloss = \"jsd\"\njsd_beta = 0.9999999"), "expected 0.001 to 0.999");
    refused(student_stage("s", "teacher = \"dense\"\ndistil_from = 5\ndistil_to = 4"), "some of the 10 steps");
    refused(student_stage("s", "teacher = \"dense\"\ndistil_to = 11"), "some of the 10 steps");
    refused(student_stage("s", "teacher = \"dense\"\ndistil_from = 0.7\ndistil_to = 0.5"), "distil_from");
    refused(student_stage("s", "labels = \"labels\"\nkd_temperature = 2.0"), "kd_temperature");
    refused(student_stage("s", "labels = \"labels\"\nloss = \"klt\""), "did you mean 'kl'");
    refused(student_stage("s", "labels = \"labels\"\nhidden_loss = \"cosine\""), "hidden states are not stored");
    refused(student_stage("s", "teacher = \"dense\"\nhidden_loss = \"mse\"\nhidden_layers = [3]"), "expected 1 to 2");
    refused(student_stage("s", "teacher = [\"dense\"]\nteacher_shares = [0.5, 0.5]"), "2 numbers for 1 teachers");
    refused(student_stage("s", "teacher = \"dense\"\nteacher_shares = [-1]"), "numbers above 0");
    refused(student_stage("s", "labels = [\"labels\", \"labels\"]"), "given twice");
    refused(label_stage("aligned", "window_rule = \"aligned\"") +
                student_stage("s", "labels = \"aligned\"\ndocument_mask = true"),
            "reads across documents");
    refused("[[stage]]\nname = \"given\"\nkind = \"label\"\nimport = \"nowhere\"\n\n" +
                student_stage("s", "labels = \"given\""),
            "holds no prose.jsonl");
    refused("[[stage]]\nname = \"given\"\nkind = \"label\"\nimport = \"corpus\"\ncontext = 8\n\n", "leave it out");
    CHECK(!fs::exists(scratch.path / "runs"));
  }
}
