// A target given as a number of parameters: the sizes that come of it by hand, what cannot be given, and a chain of
// cuts to one target in the real program.
#include "recipes/language/parameter_budget.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "recipes/stages/stages.h"
#include "src/model/parameters.h"
#include "tests/recipes/axis_recipes.h"

using namespace coppice;
using namespace coppice::test;

namespace {

/// SmolLM2-135M: an embedding of 28,311,552, 3,540,096 a layer, of which a group of heads has 294,912 and a channel
/// 1,728, and 576.
ModelConfig smollm2() {
  return {.vocab_size = 49152,
          .hidden_size = 576,
          .num_hidden_layers = 30,
          .num_attention_heads = 9,
          .num_key_value_heads = 3,
          .head_dim = 64,
          .intermediate_size = std::vector<int64_t>(30, 1536),
          .qk_norm = false};
}

ModelConfig fit(const std::string& budget, const std::vector<AxisShare>& shares) {
  return fit_parameters(smollm2(), parse_parameter_budget(budget, "x"), shares, "x");
}

const std::string kHead = axis_recipe("budget");
const char* const kSpread =
    "[model.student]\nparameters = \"0.6x\"\nshares = { ffn = 0.25, layers = 0.5, heads = 0.25 }\n";

std::string prune(const std::string& name, const std::string& from, const std::string& keys) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"prune\"\nfrom = \"" + from + "\"\ncalibration_tokens = 2048\n" +
         keys;
}
const std::string kLayers = "axis = \"layers\"\nscores = \"activation\"\n",
                  kHeads = "axis = \"heads\"\nscores = \"taylor\"\n",
                  kChannels = "scores = \"wanda_sp\"\nrefit = true\n";

Recipe load(const Scratch& scratch, const std::string& more) {
  return load_text(scratch.path / "budget.toml", kHead + more);
}

std::string refusal(const Scratch& scratch, const std::string& more) {
  return refusal_of(scratch.path / "budget.toml", kHead + more);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("parameter budget: sizes by hand") {
    REQUIRE(count_parameters(smollm2()) == 134'515'008);
    const ModelConfig narrow = fit("0.8x", {{CutAxis::ffn, 1}});
    CHECK(narrow.intermediate_size == std::vector<int64_t>(30, 992));
    CHECK(count_parameters(narrow) == 106'314'048);
    // 26,903,002 go: 6,725,750 from layers, two are nearest; 9,416,051 from heads, a group of each of 28 layers is
    // 8,257,536; of 119,177,280 then 11,565,274 from channels, 32 are 1,548,288 and eight times that is enough
    const ModelConfig mixed = fit("0.8x", {{CutAxis::layers, 0.25}, {CutAxis::heads, 0.35}, {CutAxis::ffn, 0.4}});
    CHECK(mixed.num_hidden_layers == 28);
    CHECK(mixed.num_key_value_heads == 2);
    CHECK(mixed.num_attention_heads == 6);
    CHECK(mixed.head_dim == 64);
    CHECK(mixed.intermediate_size == std::vector<int64_t>(28, 1280));
    CHECK(count_parameters(mixed) == 106'790'976);
    // 233,533 a dimension: 460.8 of them
    const ModelConfig slim = fit("0.8x", {{CutAxis::hidden, 1}});
    CHECK(slim.hidden_size == 448);
    CHECK(slim.rms_norm_eps == smollm2().rms_norm_eps);
    CHECK(fit("104622784", {{CutAxis::hidden, 1}}).hidden_size == 448);
    CHECK(fit("104622783", {{CutAxis::hidden, 1}}).hidden_size == 416);
  }

  TEST_CASE("parameter budget: never above, and by less than one step of the last axis below") {
    for (const CutAxis last : kCutOrder)
      for (double share = 0.55; share < 0.95; share += 0.0173) {
        CAPTURE(share);
        const bool first = last == CutAxis::layers;
        const double most = share * 134'515'008;
        ModelConfig fitted;
        try {
          fitted = fit(fmt::format("{}x", share), first ? std::vector<AxisShare>{{last, 1}}
                                                        : std::vector<AxisShare>{{CutAxis::layers, 0.3}, {last, 0.7}});
        } catch (const UserError&) {
          CHECK((last == CutAxis::heads || last == CutAxis::ffn));  // they have no more to give, or layers gave all
          continue;
        }
        const ModelConfig before = with_units(smollm2(), CutAxis::layers, fitted.num_hidden_layers);
        const int64_t units = units_of(fitted, last).front();
        CHECK(static_cast<double>(count_parameters(fitted)) <= most);
        CHECK(static_cast<double>(count_parameters(with_units(before, last, units + step_of(before, last)))) > most);
        if (first) continue;
        const double given = static_cast<double>(count_parameters(smollm2()) - count_parameters(before));
        CHECK(std::abs(given - 0.3 * (134'515'008 - most)) <= 3'540'096 / 2.0);
      }
  }

  TEST_CASE("parameter budget: a recipe's table becomes sizes, and what is recorded of it reads the same") {
    const Scratch scratch("budget_table");
    const std::string chain = kSpread + prune("shallow", "dense", kLayers) + prune("few", "shallow", kHeads) +
                              prune("pruned", "few", kChannels);
    const Recipe recipe = load(scratch, chain);
    // 19,802 go: 9,901 from layers, one; 4,950 from heads, 4,608 with one group of three layers; then 5,898 from
    // channels, six times the 1,152 that four of them have
    const ModelConfig& student = recipe.models.at("student");
    CHECK(student.num_hidden_layers == 3);
    CHECK(student.num_attention_heads == 6);
    CHECK(student.num_key_value_heads == 3);
    CHECK(student.head_dim == 8);
    CHECK(student.intermediate_size == std::vector<int64_t>(3, 8));
    CHECK(count_parameters(student) == 28'688);
    CHECK(recipe.model_after("pruned") == student);
    CHECK(recipe.model_after("shallow").intermediate_size == std::vector<int64_t>(3, 32));
    CHECK(recipe.model_after("few").num_key_value_heads == 3);
    CHECK(recipe.with_origins.find("num_hidden_layers = 3  # parameters") != std::string::npos);
    CHECK(recipe.with_origins.find("rms_norm_eps = 1e-05  # model.source") != std::string::npos);
    spill(scratch.path / "resolved.toml", recipe.resolved);
    const Recipe again = load_recipe((scratch.path / "resolved.toml").string(), {}, {});
    CHECK(again.resolved == recipe.resolved);
    CHECK(again.models.at("student") == student);
    // identities do not know how sizes came about
    const Recipe by_hand =
        load(scratch,
             "[model.student]\nnum_hidden_layers = 3\nnum_attention_heads = 6\nnum_key_value_heads = 3\nhead_dim = "
             "8\nintermediate_size = 8\n" +
                 chain.substr(std::string(kSpread).size()));
    for (const char* name : {"shallow", "few", "pruned"})
      CHECK(kPrune.identity(recipe, recipe.stage(name)) == kPrune.identity(by_hand, by_hand.stage(name)));
    CHECK(load(scratch, "[model.student]\nparameters = \"45e3\"\n").models.at("student").intermediate_size ==
          std::vector<int64_t>(4, 20));  // 4,504 go from 384 a channel, four at a time
  }

  TEST_CASE("parameter budget: what cannot be is refused with the numbers") {
    const Scratch scratch("budget_refused");
    const auto contains = [&](const std::string& more, const std::string& part) {
      const std::string text = refusal(scratch, more);
      INFO(text);
      CHECK(text.find(part) != std::string::npos);
    };
    const std::string student = "[model.student]\nparameters = \"0.6x\"\n";
    contains("[model.student]\nparameters = \"0.8\"\n", "parameters: got '0.8', expected a share such as 0.8x");
    contains("[model.student]\nparameters = 0.8\n", "parameters: got 0.8 (float), expected a string");
    contains("[model.student]\nparameters = \"1x\"\n",
             "parameters: 1x, 49504 parameters asked, and model.source has 49504: there is nothing to cut");
    contains("[model.student]\npreset = \"test\"\nparameters = \"0.8x\"\n", "is a part of what [model.source] has");
    contains("[model.student]\nshares = { ffn = 1 }\n", "shares: say which axes give what `parameters` asks for");
    contains(student + "shares = { ffn = 0.5, heads = 0.4 }\n", "shares: add up to 0.9, expected 1");
    contains(student + "shares = { ffn = 1.5, heads = -0.5 }\n", "shares.heads: got -0.5, expected 0 to 1");
    contains(student + "shares = { ffn = nan }\n", "shares.ffn: got nan, expected 0 to 1");
    contains(student + "shares = { depth = 1 }\n", "unknown key 'depth'");
    contains("[model.student]\nparameters = \"0.6x\"\n",
             "parameters: 0.6x, 29702 parameters, and 19802 fewer are to come from ffn (32 FFN channels a layer): they "
             "give 10752 at most, with 4 left; give it a smaller share, or ask for more parameters");
    contains(student + "shares = { layers = 0.05, ffn = 0.95 }\n",
             "and 990 fewer are to come from layers (4 layers): 1 would give 9296 at once; give it a larger share, or "
             "none");
    contains(
        "[model.student]\nparameters = \"0.85x\"\nshares = { layers = 0.9, ffn = 0.1 }\n",
        "and 0 fewer are to come from ffn (32 FFN channels a layer): 4 would give 1152 at once");  // 9,296 of 7,426
    contains("[model.student]\nparameters = \"0.9x\"\nintermediate_size = 24\n",
             "intermediate_size: got 24, and parameters = \"0.9x\" makes it 16; leave one of the two out");
    contains("[model.student]\nparameters = \"0.9x\"\nnum_hidden_layers = 3\n",
             "num_hidden_layers: got 3, and parameters = \"0.9x\" makes it 4");
  }

  TEST_CASE("parameter budget: cuts to one target follow each other, layers first, until it is reached") {
    const Scratch scratch("budget_chain");
    const auto contains = [&](const std::string& stages, const std::string& part) {
      const std::string text = refusal(scratch, kSpread + stages);
      INFO(text);
      CHECK(text.find(part) != std::string::npos);
    };
    const std::string shallow = prune("shallow", "dense", kLayers);
    contains(shallow,
             "shallow: model.student differs from stage 'dense' in more than num_hidden_layers; only layers are "
             "cut, and no later stage cuts the rest to it");
    contains(shallow + prune("few", "shallow", kHeads), "shallow: model.student differs from stage 'dense'");
    contains(shallow + prune("few", "dense", kHeads) + prune("pruned", "shallow", kChannels),
             "shallow: model.student differs from stage 'dense'");
    contains(prune("few", "dense", kHeads) + prune("shallow", "few", kLayers) + prune("pruned", "shallow", kChannels),
             "few: model.student has 3 layers, stage 'dense' has 4: layers are cut before groups of attention heads");
    contains("[model.other]\nnum_hidden_layers = 3\nnum_attention_heads = 2\nnum_key_value_heads = 1\n" +
                 prune("shallow", "dense", kLayers + "target = \"other\"\n") +
                 prune("few", "shallow", kHeads + "target = \"other\"\n"),
             "shallow: model.other.head_dim: got 16, and heads are cut whole");
  }
}

TEST_SUITE("recipe") {
  TEST_CASE("parameter budget: layers, heads and channels in a row, to the size that was asked for") {
    const Scratch scratch("budget_run");
    write_tiny_run(scratch.path);
    spill(scratch.path / "budget.toml",
          kHead +
              (kSpread + prune("shallow", "dense", kLayers) + prune("few", "shallow", kHeads) +
               prune("pruned", "few", kChannels)) +
              "[[stage]]\nname = \"scores\"\nkind = \"evaluate\"\nof = [\"dense\", \"pruned\"]\nseq_len = 64\ntokens = "
              "2048\n");
    const Outcome done = run(scratch.path, {"run", "budget.toml"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const fs::path root = scratch.path / "runs/budget";
    const auto report = nlohmann::json::parse(slurp(root / "report.json"));
    CHECK(report["models"][1]["parameters"] == 28'688);
    CHECK(report["models"][0]["num_hidden_layers"] == 4);
    CHECK(report["models"][1]["num_hidden_layers"] == 3);
    CHECK(report["models"][1]["num_key_value_heads"] == 3);
    CHECK_FALSE(report["models"][1].contains("hidden_size"));
    CHECK(slurp(root / "report.md")
              .find("| parameters | FFN width | layers | query heads | key/value heads | trained on |") !=
          std::string::npos);
    const Outcome again = run(scratch.path, {"run", "budget.toml"});
    CHECK(again.code == 0);
    CHECK(run(scratch.path, {"report", "runs/budget"}).code == 0);  // from the recorded recipe
  }
}
