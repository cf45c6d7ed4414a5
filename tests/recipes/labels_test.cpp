// Labels made once: used by other recipes where they lie, shared out among processes, and refused before the first step
// where they do not fit.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "recipes/run/cost.h"
#include "recipes/run/run_recipe.h"
#include "recipes/stages/sample_stream.h"
#include "recipes/stages/teachers.h"
#include "recipes/stages/train.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/data/label_cache_writer.h"
#include "src/model/parameters.h"
#include "tests/recipes/label_shards.h"
#include "tests/recipes/program.h"

using namespace coppice::test;

namespace {

/// The tiny recipe's data and models, shards of 4096 tokens; `stages` follow.
std::string recipe(const std::string& stages) {
  std::string tiny = slurp(fs::path(COPPICE_SOURCE_DIR) / "tests/recipes/tiny.toml");
  tiny.replace(tiny.find("shard_tokens = 65536"), 20, "shard_tokens = 4096");
  return tiny.substr(0, tiny.find("[[stage]]")) + stages;
}

const std::string kDense =
    "[[stage]]\nname = \"dense\"\nkind = \"train\"\nmodel = \"source\"\ntokens = 5120\nseq_len = 64\nbatch_tokens = "
    "512\n\n";

std::string label_stage(const std::string& options) {
  return "[[stage]]\nname = \"labels\"\nkind = \"label\"\n" + options + "\n\n";
}

std::string student_stage(const std::string& name, const std::string& options) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"train\"\nmodel = \"student\"\nlabels = \"labels\"\n" + options +
         "\n\n";
}

/// Every file below a folder with its bytes.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files[fs::relative(entry.path(), folder).string()] = slurp(entry.path());
  return files;
}

/// Without the locks of those who wrote it.
std::map<std::string, std::string> labels_of(const fs::path& folder) {
  std::map<std::string, std::string> files = files_of(folder);
  std::erase_if(files, [](const auto& file) { return file.first.find("/.lock-") != std::string::npos; });
  return files;
}

/// The label under every (domain, shard, offset) that a train stage of a finished run trains on, through the recipe's
/// own samples and caches.
using LabelsUnderTokens = std::map<std::tuple<std::string, int32_t, uint64_t>, int64_t>;
LabelsUnderTokens labels_trained_on(const fs::path& recipe_file, const fs::path& root, const std::string& stage_name) {
  using namespace coppice;
  const Recipe recipe = load_recipe(recipe_file.string(), {}, {});
  RunFolder run = RunFolder::beside_its_owner(root);
  const PreparedData data = open_data(root);
  const std::unique_ptr<Comm> comm = alone();
  const StageContext context{.recipe = recipe,
                             .stage = recipe.stage(stage_name),
                             .run = run,
                             .data = data,
                             .comm = *comm,
                             .fingerprint = "",
                             .identity = {}};
  const auto& options = context.stage.get<TrainStage>();
  SampleStream samples(context, options.training, *comm);
  StageTeachers teachers(context, options);
  const int64_t num_layers = recipe.model_after(stage_name).num_hidden_layers;
  LabelsUnderTokens labels;
  for (int64_t step = 0; step < options.training.steps(); ++step)
    for (const Batch& batch : samples.next()) {
      if (step % 2 == 1) teachers.read_ahead(batch, options.distillation);  // says the same
      const at::Tensor label_N = teachers.targets(batch, options.distillation, num_layers).front().teacher_label_N;
      for (const Span& span : batch.spans)
        for (int32_t i = 0; i < span.length; ++i) {
          const int64_t at = span.row * batch.token_BT.size(1) + span.column + i;
          if (batch.true_label_BT.reshape({-1})[at].item<int64_t>() < 0) continue;  // the last token of its document
          labels[{options.training.mixture[static_cast<size_t>(span.domain)].domain, span.shard,
                  span.offset + static_cast<uint64_t>(i)}] = label_N[at].item<int64_t>();
        }
    }
  return labels;
}

/// A copy of one domain's label cache in which label i is the one that belongs to token i + by, inside each document.
void move_labels(const fs::path& from, const fs::path& to, const coppice::TokenShards& shards, int by) {
  using namespace coppice;
  const LabelFingerprint fingerprint = read_label_fingerprint(from);
  const LabelCache cache(from, shards, fingerprint);
  LabelCacheWriter writer(to, shards, fingerprint);
  for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
    const uint64_t tokens = shards.shards()[shard].tokens;
    const auto k = static_cast<size_t>(fingerprint.k);
    std::vector<int64_t> id(tokens * k);
    std::vector<float> logp(tokens * k), tail(tokens);
    if (fingerprint.has_logp()) {
      cache.read_top_k(shard, 0, tokens, id.data(), logp.data(), tail.data());
    } else {
      cache.read(shard, 0, tokens, id.data());
    }
    ShardLabels moved(tokens, fingerprint);
    uint64_t begin = 0;
    for (const uint64_t end : shards.document_ends(shard)) {
      for (uint64_t i = begin; i < end; ++i) {
        const uint64_t source = std::clamp<uint64_t>(i + static_cast<uint64_t>(by), begin, end - 1);
        for (size_t j = 0; j < k; ++j) moved.id[i * k + j] = static_cast<int32_t>(id[source * k + j]);
        for (size_t j = 0; j < k && fingerprint.has_logp(); ++j) moved.logp[i * k + j] = logp[source * k + j];
        if (fingerprint.has_tail()) moved.tail[i] = tail[source];
      }
      begin = end;
    }
    writer.write(shard, moved);
  }
}

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE(
      "labels: those of a weak teacher that stand one place beside their tokens are refused by stage and domain, in "
      "every tier, used, imported or drawn") {
    const Scratch scratch("labels_moved");
    write_corpus(scratch.path / "corpus");
    std::string weak = kDense;
    weak.replace(weak.find("tokens = 5120"), 13, "tokens = 40960");
    for (const std::string tier : {"tier = \"top1\"", "tier = \"top1_prob\"", "tier = \"topk\"\ntop_k = 4"}) {
      CAPTURE(tier);
      spill(scratch.path / "make.toml", recipe(weak + label_stage("teacher = \"dense\"\ncontext = 64\n" + tier)));
      fs::remove_all(scratch.path / "runs/make/labels");
      const Outcome made = run(scratch.path, {"run", "make.toml", "--out", "runs/make"});
      INFO(made.err);
      REQUIRE(made.code == 0);
      const fs::path cache = scratch.path / "runs/make/labels/labels";
      const coppice::PreparedData data = coppice::open_data(scratch.path / "runs/make");
      const std::string reader = student_stage("a", "tokens = 24576\nseq_len = 64\nbatch_tokens = 512");
      for (const int by : {1, -1})
        for (const std::string moved : {"prose", "code"}) {
          fs::remove_all(scratch.path / "moved");
          for (const auto& [domain, shards] : data.train)
            move_labels(cache / domain, scratch.path / "moved" / domain, shards, domain == moved ? by : 0);
          spill(scratch.path / "use.toml", recipe(label_stage("cache = \"moved\"\n" + tier) + reader));
          const Outcome used = run(scratch.path, {"run", "use.toml", "--out", "runs/use"});
          INFO(used.err);
          CHECK(used.code == 3);
          CHECK(used.err.find("the labels of stage 'labels' in domain '" + moved + "' stand one place " +
                              (by > 0 ? "before" : "behind")) != std::string::npos);
          fs::remove_all(scratch.path / "runs/use");
        }
      // The last ones, of `code`, come out as JSONL and are refused on the way in; and where only a reader's draw is
      // looked at, before its first step.
      REQUIRE(run(scratch.path,
                  {"labels", "export", "code.jsonl", "--tokens", "runs/make/data/tokens/code", "--cache", "moved/code"})
                  .code == 0);
      const Outcome in = run(
          scratch.path, {"labels", "import", "code.jsonl", "--tokens", "runs/make/data/tokens/code", "--cache", "in"});
      CHECK(in.code == 3);
      CHECK(in.err.find("domain 'code' stand one place behind") != std::string::npos);
      CHECK(!fs::exists(scratch.path / "in"));
      // A teacher's own labels are looked at where a reader draws them, before its first step.
      fs::remove_all(cache / "code");
      fs::copy(scratch.path / "moved/code", cache / "code");
      spill(scratch.path / "make.toml",
            recipe(weak + label_stage("teacher = \"dense\"\ncontext = 64\n" + tier) + reader));
      std::string refusal;
      try {
        labels_trained_on(scratch.path / "make.toml", scratch.path / "runs/make", "a");
      } catch (const coppice::UserError& error) {
        CHECK(error.code() == coppice::ExitCode::bad_file);
        refusal = error.what();
      }
      CHECK(refusal.find("the labels of stage 'labels' in domain 'code' stand one place behind") != std::string::npos);
    }
  }

  TEST_CASE("labels: a teacher that has learned next to nothing is no reason to stop, stored or live") {
    const Scratch scratch("labels_fresh");
    write_corpus(scratch.path / "corpus");
    for (const int64_t steps : {1, 2, 4, 8, 16}) {
      CAPTURE(steps);
      std::string fresh = kDense;
      fresh.replace(fresh.find("tokens = 5120"), 13, "tokens = " + std::to_string(512 * steps));
      spill(scratch.path / "make.toml",
            recipe(fresh + label_stage("teacher = \"dense\"\ncontext = 64") +
                   student_stage("a", "tokens = 8192\nseq_len = 64\nbatch_tokens = 2048") +
                   "[[stage]]\nname = \"live\"\nkind = \"train\"\nmodel = \"student\"\nteacher = \"dense\"\ntokens = "
                   "8192\nseq_len = 64\nbatch_tokens = 2048\n"));
      const Outcome outcome = run(scratch.path, {"run", "make.toml", "--out", "runs/" + std::to_string(steps)});
      INFO(outcome.err);
      CHECK(outcome.code == 0);
    }
  }

  TEST_CASE("labels: what vLLM gives is trained on, its holes with the text alone") {
    const Scratch scratch("labels_vllm");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "make.toml",
          recipe(kDense + label_stage("teacher = \"dense\"\ncontext = 64\ntier = \"topk\"\ntop_k = 3")));
    REQUIRE(run(scratch.path, {"run", "make.toml", "--out", "runs/make"}).code == 0);
    for (const char* domain : {"prose", "code"}) {
      const std::string name = domain;
      REQUIRE(run(scratch.path, {"labels", "export", name + ".jsonl", "--tokens", "runs/make/data/tokens/" + name,
                                 "--cache", "runs/make/labels/labels/" + name})
                  .code == 0);
      // As a served model would say it: no end-of-text, 300 tokens at most, the actual token among the entries, the
      // first one null.
      std::istringstream lines(slurp(scratch.path / (name + ".jsonl")));
      std::string out = "{\"id\": \"held out\", \"prompt_token_ids\": [5], \"prompt_logprobs\": [null]}\n", line;
      std::getline(lines, line);
      while (std::getline(lines, line)) {
        const auto ours = nlohmann::json::parse(line);
        std::vector<int64_t> tokens = ours["tokens"];
        tokens.resize(std::min<size_t>(tokens.size() - 1, 300));
        nlohmann::json given = {{"doc", ours["doc"]}, {"prompt_token_ids", tokens}, {"prompt_logprobs", {nullptr}}};
        for (size_t i = 1; i < tokens.size(); ++i) {
          nlohmann::json entry = {{std::to_string(tokens[i]), {{"logprob", -30.0}, {"rank", 99}}}};
          for (size_t j = 0; j < ours["top_ids"][i - 1].size(); ++j)
            entry[std::to_string(ours["top_ids"][i - 1][j].get<int64_t>())] = {
                {"logprob", ours["top_logprobs"][i - 1][j]}, {"rank", j + 1}};
          given["prompt_logprobs"].push_back(entry);
        }
        out += given.dump() + "\n";
      }
      spill(scratch.path / "dumps" / (name + ".jsonl"), out);
    }
    const std::string given = "import = \"dumps\"\nimport_format = \"vllm\"\ntier = \"topk\"\ntop_k = 3\n";
    for (const char* loss : {"labels", "top_k"}) {
      CAPTURE(loss);
      spill(scratch.path / "use.toml",
            recipe(label_stage(given + "coverage = \"some\"") +
                   student_stage(
                       "a", std::string("tokens = 8192\nseq_len = 64\nbatch_tokens = 512\nloss = \"") + loss + "\"")));
      const Outcome used = run(scratch.path, {"run", "use.toml", "--out", std::string("runs/") + loss});
      INFO(used.err);
      CHECK(used.code == 0);
      CHECK(used.err.find("documents are cut short or have no label for their end-of-text") != std::string::npos);
      CHECK(used.err.find("held out or not in the token shards and are left out") != std::string::npos);
      CHECK(
          used.err.find("% of the tokens that it draws have no label of 'labels' and are trained on the text alone") !=
          std::string::npos);
    }
    spill(scratch.path / "use.toml", recipe(label_stage(given + "coverage = \"used\"") +
                                            student_stage("a", "tokens = 8192\nseq_len = 64\nbatch_tokens = 512")));
    const Outcome holes = run(scratch.path, {"run", "use.toml", "--out", "runs/used"});
    CHECK(holes.code == 3);
    CHECK(holes.err.find("coverage = \"some\" leaves it to the text") != std::string::npos);
    spill(scratch.path / "use.toml", recipe(label_stage("teacher = \"dense\"\ncoverage = \"some\"")));
    CHECK(run(scratch.path, {"config", "use.toml"}).code == 2);
  }

  TEST_CASE(
      "labels: ids that occur twice are named when the corpus is read, and the export comes in again all the same") {
    const Scratch scratch("labels_ids");
    write_corpus(scratch.path / "corpus");
    // numbers, none, unicode, and the ids of the first lines once more
    std::istringstream lines(slurp(scratch.path / "corpus/code.jsonl"));
    std::string out;
    int64_t number = 0;
    for (std::string line; std::getline(lines, line); ++number) {
      auto document = nlohmann::json::parse(line);
      if (number % 5 == 0) document["id"] = number;
      if (number % 5 == 1) document["id"] = "";
      if (number % 5 == 2) document["id"] = "\xE6\x9E\x9D " + std::to_string(number);
      if (number > 40 && number % 5 == 3) document["id"] = number % 40 / 5 * 5;
      out += document.dump() + "\n";
    }
    spill(scratch.path / "corpus/code.jsonl", out);
    spill(scratch.path / "make.toml",
          recipe(kDense + label_stage("teacher = \"dense\"\ncontext = 64\nwindow_rule = \"aligned\"")));
    const Outcome made = run(scratch.path, {"run", "make.toml", "--out", "runs/make"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK(made.err.find("documents have an id that came before") != std::string::npos);
    CHECK(made.err.find("in code.jsonl:1 and code.jsonl:") != std::string::npos);
    const std::string tokens = "runs/make/data/tokens/code", cache = "runs/make/labels/labels/code";
    REQUIRE(run(scratch.path, {"labels", "export", "code.jsonl.zst", "--tokens", tokens, "--cache", cache}).code == 0);
    const Outcome in =
        run(scratch.path, {"labels", "import", "code.jsonl.zst", "--tokens", tokens, "--cache", "again"});
    INFO(in.err);
    REQUIRE(in.code == 0);
    auto first = labels_of(scratch.path / cache), again = labels_of(scratch.path / "again");
    for (auto* files : {&first, &again})
      std::erase_if(*files, [](const auto& file) { return file.first.starts_with(".lock-"); });
    CHECK(first.size() > 2);
    CHECK(first == again);
  }

  TEST_CASE(
      "labels: one labelling, three trainings of another recipe with other batches, lengths and seeds: the same label "
      "under every token") {
    const Scratch scratch("labels_once");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "make.toml", recipe(kDense + label_stage("teacher = \"dense\"\ncontext = 64")));
    const Outcome made = run(scratch.path, {"run", "make.toml", "--out", "runs/make"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK(made.err.find("of the labelled tokens") != std::string::npos);  // how many near ties
    const fs::path cache = scratch.path / "runs/make/labels/labels";
    const auto before = files_of(cache);
    const std::string shapes[] = {
        "tokens = 24576\nseq_len = 64\nbatch_tokens = 512",
        "tokens = 24576\nseq_len = 32\nbatch_tokens = 1024\nseed = 5",
        "tokens = 20480\nseq_len = 128\nbatch_tokens = 256\ndata_seed = 9\ndistil_to = 70\nteacher_weight_end = 0.1"};
    spill(scratch.path / "use.toml",
          recipe(label_stage("cache = \"" + cache.string() + "\"") + student_stage("a", shapes[0]) +
                 student_stage("b", shapes[1]) + student_stage("c", shapes[2])));
    const Outcome used = run(scratch.path, {"run", "use.toml", "--out", "runs/use"});
    INFO(used.err);
    REQUIRE(used.code == 0);
    CHECK(used.err.find("used where they lie") != std::string::npos);
    CHECK(files_of(cache) == before);  // only read
    CHECK(count_shards(scratch.path / "runs/use/labels") == 0);

    LabelsUnderTokens all;
    size_t compared = 0;
    for (const char* stage : {"a", "b", "c"})
      for (const auto& [token, label] :
           labels_trained_on(scratch.path / "use.toml", scratch.path / "runs/use", stage)) {
        const auto [first, is_new] = all.emplace(token, label);
        compared += !is_new;
        CHECK(first->second == label);
      }
    CHECK(compared > 5000);  // tokens that two of the trainings drew
    // and they are the stored ones
    const coppice::PreparedData data = coppice::open_data(scratch.path / "runs/use");
    for (const auto& [domain, shards] : data.train) {
      const coppice::LabelCache stored(cache / domain, shards, coppice::read_label_fingerprint(cache / domain));
      for (const auto& [token, label] : all) {
        if (std::get<0>(token) != domain) continue;
        int64_t wanted = 0;
        stored.read(static_cast<size_t>(std::get<1>(token)), std::get<2>(token), 1, &wanted);
        CHECK(label == wanted);
      }
    }

    // the scheduled weight stands in the metrics, and 70 of 80 steps distil
    std::istringstream lines(slurp(scratch.path / "runs/use/c/metrics.jsonl"));
    int64_t distilled = 0;
    for (std::string line; std::getline(lines, line);)
      distilled += nlohmann::json::parse(line).at("teacher_weight").get<double>() > 0;
    CHECK(distilled == 70);
    CHECK_FALSE(slurp(scratch.path / "runs/use/a/metrics.jsonl").find("teacher_weight") != std::string::npos);

    const auto refused = [&](int code, const std::string& stages, const std::string& word) {
      spill(scratch.path / "other.toml", stages);
      const Outcome outcome = run(scratch.path, {"run", "other.toml", "--out", "runs/other"});
      INFO(word << ": " << outcome.err);
      CHECK(outcome.code == code);
      CHECK(outcome.err.find(word) != std::string::npos);
      fs::remove_all(scratch.path / "runs/other");
    };
    const std::string use = "cache = \"" + cache.string() + "\"", reader = student_stage("a", shapes[0]);
    refused(2, recipe(label_stage(use + "\ncontext = 64") + reader), "context: labels from `cache` are there already");
    refused(2, recipe(label_stage("cache = \"corpus\"") + reader), "holds no label cache of domain 'prose'");
    refused(2, recipe(label_stage(use + "\nimport = \"corpus\"") + reader), "cache and import");
    refused(3, recipe(label_stage(use + "\ntier = \"top1_prob\"") + reader),
            "another tier: found top1, expected top1_prob");
    std::string other_teacher = kDense;
    other_teacher.replace(other_teacher.find("tokens = 5120"), 13, "tokens = 5632");
    refused(3, recipe(other_teacher + label_stage(use + "\nteacher = \"dense\"") + reader), "another teacher_sha256");
    std::string other_tokenizer = recipe(label_stage(use) + reader);
    other_tokenizer.replace(other_tokenizer.find("training_bytes = 100000"), 23, "training_bytes = 50000");
    refused(3, other_tokenizer, "another tokenizer_sha256");
    // its own teacher may be named; one flipped byte is seen, and a finished run does not take other labels for the
    // same
    spill(scratch.path / "same.toml", recipe(kDense + label_stage(use + "\nteacher = \"dense\"")));
    CHECK(run(scratch.path, {"run", "same.toml", "--out", "runs/same"}).code == 0);
    {
      std::fstream file(cache / "prose/shard-00001.h5", std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(-100, std::ios::end);
      file.put('!');
    }
    refused(3, recipe(label_stage(use) + reader), "shard-00001.h5");
  }

  TEST_CASE(
      "labels: a hole in what a stage will draw is refused before its first step, naming domain, shard and tokens") {
    const Scratch scratch("labels_hole");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "make.toml", recipe(kDense + label_stage("teacher = \"dense\"\ncontext = 64")));
    REQUIRE(run(scratch.path, {"run", "make.toml", "--out", "runs/make"}).code == 0);
    for (const char* domain : {"prose", "code"})
      REQUIRE(run(scratch.path, {"labels", "export", std::string("given/") + domain + ".jsonl", "--tokens",
                                 std::string("runs/make/data/tokens/") + domain, "--cache",
                                 std::string("runs/make/labels/labels/") + domain})
                  .code == 0);
    // line 1 is the header; one document of `prose` is lost
    std::istringstream lines(slurp(scratch.path / "given/prose.jsonl"));
    std::string kept;
    int number = 0;
    for (std::string line; std::getline(lines, line); ++number)
      if (number != 20) kept += line + "\n";
    REQUIRE(number > 30);
    spill(scratch.path / "given/prose.jsonl", kept);
    spill(scratch.path / "use.toml", recipe(label_stage("import = \"given\"\ncoverage = \"used\"") +
                                            student_stage("a", "tokens = 163840\nseq_len = 64\nbatch_tokens = 512")));
    const Outcome outcome = run(scratch.path, {"run", "use.toml", "--out", "runs/use"});
    INFO(outcome.err);
    CHECK(outcome.code == 3);
    CHECK(outcome.err.find("of domain 'prose', which step ") != std::string::npos);
    CHECK(outcome.err.find("no labels for tokens ") != std::string::npos);
    CHECK(outcome.err.find("shard-000") != std::string::npos);
    CHECK(!fs::exists(scratch.path / "runs/use/a/metrics.jsonl"));
    const Outcome shown = run(scratch.path, {"inspect", "runs/use/labels/labels/prose"});
    CHECK(shown.out.find("; first gap: tokens ") != std::string::npos);
  }

  TEST_CASE(
      "labels: aligned labels of another length than the stage's are said aloud; an export's first line makes the same "
      "cache again") {
    const Scratch scratch("labels_aligned");
    write_corpus(scratch.path / "corpus");
    spill(
        scratch.path / "make.toml",
        recipe(kDense +
               label_stage("teacher = \"dense\"\ncontext = 32\nwindow_rule = \"aligned\"\ntier = \"topk\"\ntop_k = 4") +
               student_stage("a", "tokens = 2048\nseq_len = 64\nbatch_tokens = 512")));
    const Outcome made = run(scratch.path, {"run", "make.toml", "--out", "runs/make"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK(made.err.find("windows of 32 tokens, this stage's are 64") != std::string::npos);
    CHECK(run(scratch.path, {"plan", "make.toml"}).out.find("windows of 32 tokens") != std::string::npos);
    const std::string tokens = "runs/make/data/tokens/code", cache = "runs/make/labels/labels/code";
    REQUIRE(run(scratch.path, {"labels", "export", "code.jsonl.zst", "--tokens", tokens, "--cache", cache}).code == 0);
    REQUIRE(run(scratch.path, {"labels", "import", "code.jsonl.zst", "--tokens", tokens, "--cache", "again"}).code ==
            0);
    std::map<std::string, std::string> first = files_of(scratch.path / cache), again = files_of(scratch.path / "again");
    for (auto* files : {&first, &again})
      std::erase_if(*files, [](const auto& file) { return file.first.starts_with(".lock-"); });
    CHECK(first.size() > 2);
    CHECK(first == again);
    const Outcome other = run(scratch.path, {"labels", "import", "code.jsonl.zst", "--tokens", tokens, "--cache",
                                             "other", "--teacher", "somebody"});
    CHECK(other.code == 3);
    CHECK(other.err.find("another teacher_sha256") != std::string::npos);
    CHECK(!fs::exists(scratch.path / "other"));
    // a stage may name the teacher: it must be the one that the file names
    spill(scratch.path / "named.toml",
          recipe(label_stage("import = \"given\"\nimport_teacher = \"somebody\"\ntier = \"topk\"\ntop_k = 4")));
    for (const char* domain : {"prose", "code"})
      REQUIRE(run(scratch.path, {"labels", "export", std::string("given/") + domain + ".jsonl", "--tokens",
                                 std::string("runs/make/data/tokens/") + domain, "--cache",
                                 std::string("runs/make/labels/labels/") + domain})
                  .code == 0);
    const Outcome named = run(scratch.path, {"run", "named.toml", "--out", "runs/named"});
    CHECK(named.code == 3);
    CHECK(named.err.find("another teacher_sha256") != std::string::npos);
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("labels: coverage used labels what is drawn in the steps that distil, and the student's bits stay") {
    const Scratch scratch("labels_distil");
    write_corpus(scratch.path / "corpus");
    // each window of draws is read alone: equal labels whatever else is labelled
    const std::string draws = "teacher = \"dense\"\ncontext = 64\ntier = \"sample\"";
    const auto late = [](const std::string& more) {
      return student_stage("late", "tokens = 4096\nseq_len = 64\nbatch_tokens = 512\nloss = \"sample\"\n" + more);
    };
    spill(scratch.path / "used.toml",
          recipe(kDense + label_stage(draws + "\ncoverage = \"used\"") + late("distil_from = 0.5")));
    spill(scratch.path / "all.toml", recipe(kDense + label_stage(draws) + late("distil_from = 0.5")));
    for (const char* name : {"used", "all"}) {
      const Outcome outcome =
          run(scratch.path, {"run", std::string(name) + ".toml", "--out", std::string("runs/") + name});
      INFO(outcome.err);
      REQUIRE(outcome.code == 0);
    }
    const auto labelled =
        nlohmann::json::parse(slurp(scratch.path / "runs/used/labels/manifest.json")).at("tokens").get<uint64_t>();
    CHECK(labelled > 1024);  // of 2048 that are drawn in four of eight steps
    CHECK(labelled <= 2048);
    CHECK(slurp(scratch.path / "runs/used/late/model/part-00000.h5") ==
          slurp(scratch.path / "runs/all/late/model/part-00000.h5"));

    // other labels, another fingerprint; the same labels, the same
    const auto identity_of = [&](const std::string& coverage, const std::string& more) {
      spill(scratch.path / "r.toml", recipe(kDense + label_stage(draws + "\n" + coverage) + late(more)));
      const coppice::Recipe loaded = coppice::load_recipe((scratch.path / "r.toml").string(), {}, {});
      return coppice::stage_identity(loaded, loaded.stage("labels"), {{"dense", "d"}, {"labels", "l"}}, "data");
    };
    const std::string used = "coverage = \"used\"";
    const coppice::Json plain = identity_of(used, "");
    CHECK(plain.dump().find("distilling_steps") == std::string::npos);
    CHECK(identity_of(used, "distil_to = 1.0\nteacher_weight_end = 0.1") == plain);
    CHECK(identity_of(used, "distil_to = 0.99") == plain);  // the last step begins at 7/8
    CHECK(identity_of(used, "distil_from = 0.5") != plain);
    CHECK(identity_of(used, "distil_from = 4") == identity_of(used, "distil_from = 0.5"));
    CHECK(identity_of(used, "distil_to = 0.5") != identity_of(used, "distil_from = 0.5"));
    CHECK(identity_of("", "distil_from = 0.5") == identity_of("", ""));
  }
}

TEST_SUITE("faults") {
  TEST_CASE(
      "labels: coverage used holds what is drawn and nothing else, whoever was killed or joined; the labels are those "
      "of full coverage") {
    const Scratch scratch("labels_used");
    write_corpus(scratch.path / "corpus");
    const std::string topk = "teacher = \"dense\"\ncontext = 64\ntier = \"topk\"\ntop_k = 40";
    const std::string readers =
        student_stage("a", "tokens = 4096\nseq_len = 64\nbatch_tokens = 512\nloss = \"top_k\"") +
        student_stage("b", "tokens = 2048\nseq_len = 32\nbatch_tokens = 256\ndata_seed = 3");
    spill(scratch.path / "used.toml", recipe(kDense + label_stage(topk + "\ncoverage = \"used\"") + readers));
    spill(scratch.path / "all.toml", recipe(kDense + label_stage(topk)));
    const Outcome used = run(scratch.path, {"run", "used.toml", "--out", "runs/used"});
    INFO(used.err);
    REQUIRE(used.code == 0);
    REQUIRE(run(scratch.path, {"run", "all.toml", "--out", "runs/all"}).code == 0);
    const fs::path used_labels = scratch.path / "runs/used/labels/labels",
                   all_labels = scratch.path / "runs/all/labels/labels";
    const auto results_of = [&](const char* run_name) {
      return nlohmann::json::parse(slurp(scratch.path / "runs" / run_name / "labels/manifest.json"));
    };
    const auto labelled = results_of("used").at("tokens").get<uint64_t>(),
               all = results_of("all").at("tokens").get<uint64_t>();
    CHECK(labelled > 4096);  // of 6144 that are drawn
    CHECK(labelled <= 6144);

    // the bytes of the labels, their table, and a few kB a file; the plan says so
    const auto bytes_of = [](const fs::path& folder) {
      uint64_t bytes = 0;
      for (const auto& entry : fs::recursive_directory_iterator(folder))
        bytes += entry.is_regular_file() ? entry.file_size() : 0;
      return bytes;
    };
    constexpr uint64_t kRowBytes = 40 * 4 + 2, kFileBytes = 15'000;
    const auto shards = static_cast<uint64_t>(count_shards(used_labels));
    REQUIRE(shards > 12);
    CHECK(bytes_of(used_labels) >= labelled * kRowBytes);
    CHECK(bytes_of(used_labels) <= labelled * kRowBytes + 128 * coppice::kLabelRunBytes + shards * kFileBytes);
    CHECK(bytes_of(all_labels) >= all * kRowBytes);
    const coppice::Recipe planned = coppice::load_recipe((scratch.path / "used.toml").string(), {}, {});
    const coppice::RecipeCost costs = coppice::estimate_cost(planned, coppice::corpus_bytes(planned), 0);
    const auto cost = std::ranges::find(costs.stages, "labels", &coppice::StageCost::name);
    REQUIRE(cost != costs.stages.end());
    CHECK(cost->disk_bytes == 6144 * kRowBytes + 128 * coppice::kLabelRunBytes);

    // under every token that has one the label of full coverage, but for near ties
    const coppice::PreparedData data = coppice::open_data(scratch.path / "runs/used");
    uint64_t held = 0, other = 0;
    for (const auto& [domain, tokens] : data.train) {
      const coppice::LabelCache some(used_labels / domain, tokens,
                                     coppice::read_label_fingerprint(used_labels / domain),
                                     coppice::LabelCoverage::some);
      const coppice::LabelCache every(all_labels / domain, tokens,
                                      coppice::read_label_fingerprint(all_labels / domain));
      for (size_t shard = 0; shard < tokens.shards().size(); ++shard) {
        std::vector<int64_t> a(tokens.shards()[shard].tokens), b(a.size());
        some.read(shard, 0, a.size(), a.data());
        every.read(shard, 0, b.size(), b.data());
        for (size_t i = 0; i < a.size(); ++i) held += a[i] >= 0, other += a[i] >= 0 && a[i] != b[i];
      }
    }
    CHECK(held == labelled);
    CHECK(other <= results_of("all").at("results").at("near_ties").get<uint64_t>());

    // killed with a claim and taken over by another process, then gone on with: the same bytes
    const auto wanted = labels_of(used_labels);
    const Outcome killed = run(scratch.path, {"run", "used.toml", "--out", "runs/killed"},
                               [] { setenv("COPPICE_FAILPOINTS", "label.claimed=abort@5", 1); });
    CHECK(killed.signal == SIGKILL);
    CHECK(count_shards(scratch.path / "runs/killed/labels") == 4);
    const Outcome joined =
        run(scratch.path, {"labels", "join", "used.toml", "--stage", "labels", "--out", "runs/killed"});
    INFO(joined.err);
    CHECK(joined.code == 0);
    CHECK(labels_of(scratch.path / "runs/killed/labels/labels") == wanted);
    CHECK(run(scratch.path, {"run", "used.toml", "--out", "runs/killed"}).code == 0);
    CHECK(labels_of(scratch.path / "runs/killed/labels/labels") == wanted);
    CHECK(slurp(scratch.path / "runs/killed/b/model/part-00000.h5") ==
          slurp(scratch.path / "runs/used/b/model/part-00000.h5"));
  }

  TEST_CASE(
      "labels: two processes share a stage's shards, one that is killed is replaced, and the labels are those of one") {
    const Scratch scratch("labels_shared");
    write_corpus(scratch.path / "corpus");
    spill(scratch.path / "one.toml", recipe(kDense + label_stage("teacher = \"dense\"\ncontext = 64")));
    REQUIRE(run(scratch.path, {"run", "one.toml", "--out", "runs/one"}).code == 0);
    const auto wanted = labels_of(scratch.path / "runs/one/labels/labels");
    const int64_t shards = count_shards(scratch.path / "runs/one/labels");
    REQUIRE(shards > 12);
    const auto join = [&](const fs::path& out) {
      return start(scratch.path, {"labels", "join", "one.toml", "--stage", "labels", "--out", out.string()});
    };
    const auto paused_run = [&](const fs::path& out) {  // holds the claim of its third shard
      return start(scratch.path, {"run", "one.toml", "--out", out.string()},
                   [] { setenv("COPPICE_FAILPOINTS", "label.claimed=sleep:3@3", 1); });
    };
    const Outcome early = join("runs/one").wait();
    CHECK(early.out.find("already complete") != std::string::npos);
    CHECK(join("runs/nowhere").wait().code == 2);

    {  // both label, both end well
      Process first = paused_run("runs/two");
      wait_for([&] { return count_shards(scratch.path / "runs/two/labels") >= 2 || first.poll(); });
      first.send(SIGSTOP);
      Process second = join("runs/two");
      wait_for([&] { return count_shards(scratch.path / "runs/two/labels") >= 5 || second.poll(); });
      const Outcome shown = run(scratch.path, {"inspect", "runs/two/labels"});
      first.send(SIGCONT);
      INFO(second.wait().err);
      CHECK(second.wait().code == 0);
      CHECK(second.outcome.out.find("shards labelled here") != std::string::npos);
      CHECK(std::stoll(second.outcome.out) >= 3);
      CHECK(std::stoll(second.outcome.out) < shards);
      CHECK(first.wait().code == 0);
      CHECK(labels_of(scratch.path / "runs/two/labels/labels") == wanted);
      CHECK(shown.out.find("labels of 'code': ") !=
            std::string::npos);  // of the whole domain, while some shards are missing
      CHECK(shown.out.find("(100.0%)") == std::string::npos);
    }
    {  // the run dies with a shard claimed; who joined finishes it all, and the run goes on with what is there
      Process first = paused_run("runs/killed");
      wait_for([&] { return count_shards(scratch.path / "runs/killed/labels") >= 2 || first.poll(); });
      first.send(SIGSTOP);
      Process second = join("runs/killed");
      wait_for([&] { return count_shards(scratch.path / "runs/killed/labels") >= shards - 1 || second.poll(); });
      first.send(SIGKILL);
      CHECK(first.wait().signal == SIGKILL);
      INFO(second.wait().err);
      CHECK(second.wait().code == 0);
      CHECK(std::stoll(second.outcome.out) >=
            shards - 2);  // all but the run's first, and its second when that was committed
      CHECK(std::stoll(second.outcome.out) < shards);
      CHECK(labels_of(scratch.path / "runs/killed/labels/labels") == wanted);
      CHECK(run(scratch.path, {"run", "one.toml", "--out", "runs/killed"}).code == 0);
      CHECK(labels_of(scratch.path / "runs/killed/labels/labels") == wanted);
      CHECK(slurp(scratch.path / "runs/killed/labels/manifest.json") ==
            slurp(scratch.path / "runs/one/labels/manifest.json"));
    }
    {  // who goes on with a stage keeps the batch that it was begun with
      Process first = paused_run("runs/batch");
      wait_for([&] { return count_shards(scratch.path / "runs/batch/labels") >= 2 || first.poll(); });
      first.send(SIGKILL);
      first.wait();
      spill(scratch.path / "runs/batch/labels/batch.json",
            coppice::seal({{"format", "coppice.label_batch"}, {"version", 1}, {"batch_tokens", 96}}));
      REQUIRE(run(scratch.path, {"run", "one.toml", "--out", "runs/batch"}).code == 0);
      CHECK(nlohmann::json::parse(slurp(scratch.path / "runs/batch/labels/manifest.json"))["results"]["batch_tokens"] ==
            96);
      CHECK(nlohmann::json::parse(slurp(scratch.path / "runs/one/labels/manifest.json"))["results"]["batch_tokens"] ==
            8192);
    }
  }
}
