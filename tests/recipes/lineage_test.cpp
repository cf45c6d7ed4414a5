// What models stand for, by the kinds and `from` chains of recipes of many shapes; stages carry names that say nothing
// or the wrong thing.
#include "recipes/run/lineage.h"

#include <doctest/doctest.h>

#include "tests/recipes/program.h"

using namespace coppice;
using namespace coppice::test;

namespace {

const char* const kHead = R"(
[data]
[[data.domain]]
name = "d"
path = "d.jsonl"
[tokenizer]
vocab_size = 512
[model.source]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 96
[model.student]
intermediate_size = 32
[model.small]
hidden_size = 16
intermediate_size = 32
)";

std::string stage(const std::string& name, const std::string& kind, const std::string& rest) {
  return "[[stage]]\nname = \"" + name + "\"\nkind = \"" + kind + "\"\n" + rest + "\n";
}
std::string train(const std::string& name, const std::string& rest) {
  return stage(name, "train", "tokens = 2048\n" + rest);
}
std::string fresh(const std::string& name, const std::string& model, const std::string& rest = "") {
  return train(name, "model = \"" + model + "\"\n" + rest);
}
std::string on(const std::string& name, const std::string& from, const std::string& rest = "") {
  return train(name, "from = \"" + from + "\"\n" + rest);
}
std::string masks(const std::string& name, const std::string& from, const std::string& target = "student") {
  return stage(name, "learn_masks", "tokens = 2048\nfrom = \"" + from + "\"\ntarget = \"" + target + "\"");
}
std::string prune(const std::string& name, const std::string& from, const std::string& scores = "",
                  const std::string& target = "student") {
  return stage(
      name, "prune",
      "from = \"" + from + "\"\ntarget = \"" + target + "\"" + (scores.empty() ? "" : "\nscores = \"" + scores + "\""));
}
std::string labels(const std::string& name, const std::string& teacher) {
  return stage(name, "label", "teacher = \"" + teacher + "\"");
}

Recipe load(const std::string& stages) {
  const Scratch scratch("lineage");
  spill(scratch.path / "r.toml", kHead + stages);
  return load_recipe((scratch.path / "r.toml").string(), {}, {});
}

using Roles = std::map<std::string, std::string>;

/// Of all models of the recipe, or of `scored`.
Roles roles(const std::string& stages, std::vector<std::string> scored = {}, const std::string& agreement_with = "") {
  const Recipe recipe = load(stages);
  if (scored.empty())
    for (const Stage& each : recipe.stages)
      if (each.kind != "label") scored.push_back(each.name);
  return roles_of(recipe, scored, agreement_with);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("roles_of: learned masks, with one-shot cuts, a fresh model and an uncut one beside them") {
    CHECK(roles(fresh("scratch", "source") + masks("core", "scratch") + prune("long", "core") +
                prune("m", "scratch", "magnitude") + labels("pruned", "scratch") +
                on("dense", "long", "labels = \"pruned\"") + on("x", "dense") + on("y", "long") + on("z", "m") +
                fresh("w", "student") + on("v", "scratch") + fresh("u", "small", "labels = \"pruned\"")) ==
          Roles{{"scratch", "source"},
                {"core", ""},
                {"long", "pruned"},
                {"m", "magnitude"},
                {"dense", "student"},
                {"x", "student"},
                {"y", "plain"},
                {"z", "magnitude"},
                {"w", "scratch"},
                {"v", "control"},
                {"u", "distilled"}});
  }

  TEST_CASE("roles_of: a one-shot cut that was refitted says so, and is another than one that was not") {
    CHECK(
        roles(fresh("a", "source") + masks("s", "a") + prune("b", "s") + prune("m", "a", "flap") +
              stage("r", "prune", "from = \"a\"\ntarget = \"student\"\nscores = \"flap\"\nrefit = true") +
              on("t", "r")) ==
        Roles{
            {"a", "source"}, {"s", ""}, {"b", "pruned"}, {"m", "flap"}, {"r", "flap + refit"}, {"t", "flap + refit"}});
  }

  TEST_CASE("roles_of: a one-shot cut alone is the run's own cut, with labels or without") {
    const std::string cut = fresh("a", "source") + prune("b", "a", "activation");
    CHECK(roles(cut) == Roles{{"a", "source"}, {"b", "pruned"}});
    CHECK(roles(cut + on("c", "b")) == Roles{{"a", "source"}, {"b", "pruned"}, {"c", "student"}});
    CHECK(roles(cut + labels("l", "a") + on("c", "b", "labels = \"l\"") + on("d", "b")) ==
          Roles{{"a", "source"}, {"b", "pruned"}, {"c", "student"}, {"d", "plain"}});
    CHECK(roles(cut + on("c", "b", "teacher = \"a\"")) == Roles{{"a", "source"}, {"b", "pruned"}, {"c", "student"}});
    // of two scores the one that is trained, and of two that are trained the one that is taught
    CHECK(roles(cut + prune("r", "a", "random") + on("c", "b")) ==
          Roles{{"a", "source"}, {"b", "pruned"}, {"r", "random"}, {"c", "student"}});
    CHECK(roles(cut + prune("r", "a", "random") + on("c", "b", "teacher = \"a\"") + on("d", "r")) ==
          Roles{{"a", "source"}, {"b", "pruned"}, {"r", "random"}, {"c", "student"}, {"d", "random"}});
    // two that are equal in all are compared as what they are
    CHECK(roles(cut + prune("r", "a", "random") + on("c", "b") + on("d", "r")) ==
          Roles{{"a", "source"}, {"b", "activation"}, {"r", "random"}, {"c", "activation"}, {"d", "random"}});
  }

  TEST_CASE("roles_of: two cuts in a chain; the source is what was cut, the nearest that was scored") {
    const std::string stages = fresh("a", "source") + on("b", "a") + prune("c", "b", "activation") + on("d", "c") +
                               prune("e", "b", "activation", "student") + on("f", "e");
    CHECK(roles(stages)["a"] == "");
    CHECK(roles(stages)["b"] == "source");
    CHECK(roles(stages, {"a", "d"}) == Roles{{"a", "source"}, {"d", "student"}});
  }

  TEST_CASE("roles_of: a student as wide as its source is a control") {
    const std::string stages = fresh("a", "source") + masks("b", "a", "source") + prune("c", "b", "", "source") +
                               labels("l", "a") + on("d", "c", "labels = \"l\"");
    CHECK(roles(stages) == Roles{{"a", "source"}, {"b", ""}, {"c", "control"}, {"d", "control"}});
    // beside a real cut too
    Roles both = roles(stages + prune("e", "a", "magnitude") + on("f", "e", "labels = \"l\""));
    CHECK(both["d"] == "control");
    CHECK(both["e"] == "pruned");
    CHECK(both["f"] == "student");
  }

  TEST_CASE("roles_of: distillation without a cut, training alone") {
    CHECK(roles(fresh("a", "source") + labels("l", "a") + fresh("b", "small", "labels = \"l\"") +
                fresh("c", "small")) == Roles{{"a", "source"}, {"b", "student"}, {"c", "scratch"}});
    CHECK(roles(fresh("a", "source") + fresh("b", "small", "teacher = \"a\"")) ==
          Roles{{"a", "source"}, {"b", "student"}});
    CHECK(roles(fresh("a", "source") + fresh("b", "small"), {}, "a") == Roles{{"a", "source"}, {"b", ""}});
    CHECK(roles(fresh("a", "source"), {}, "a") == Roles{{"a", "source"}});
  }

  TEST_CASE(
      "purpose_of: what leads to the student is the method, what was cut or taught is the source, the rest is "
      "comparison") {
    const auto purposes = [](const std::string& stages) {
      std::string letters;
      const Recipe recipe = load(stages);
      for (const Stage& each : recipe.stages) letters += "MSC"[static_cast<size_t>(purpose_of(recipe, each))];
      return letters;
    };
    CHECK(purposes(fresh("a", "source") + masks("b", "a") + prune("c", "b") + on("v", "a") +
                   prune("m", "v", "magnitude") + labels("l", "a") + on("d", "c", "labels = \"l\"") +
                   fresh("w", "student")) == "SMMCCMMC");
    CHECK(purposes(fresh("a", "source") + prune("b", "a", "activation") + labels("l", "a") +
                   on("d", "b", "labels = \"l\"")) == "SMMM");
    CHECK(purposes(fresh("a", "source") + prune("b", "a", "activation")) == "SM");
    CHECK(purposes(fresh("a", "source") + prune("b", "a", "activation") +
                   stage("e", "evaluate", "of = [\"a\", \"b\"]")) == "SMC");
    CHECK(purposes(fresh("a", "source") + labels("l", "a") + fresh("b", "small", "labels = \"l\"") +
                   fresh("c", "small")) == "SMMC");
    CHECK(purposes(fresh("a", "source")) == "S");
    CHECK(purposes(fresh("a", "source") + fresh("b", "small") + on("c", "b")) == "SCC");
    // of two students the exported one is the method, with what leads to it and what comes behind it
    const std::string two = fresh("a", "source") + prune("b", "a", "activation") + labels("l", "a") +
                            on("d", "b", "labels = \"l\"") + on("e", "d") + labels("k", "a") +
                            on("x", "b", "labels = \"k\"") + on("y", "x");
    const auto exported = [&](const std::string& from) { return stage("out", "export", "from = \"" + from + "\""); };
    CHECK(purposes(two) == "SMMMMMMM");
    CHECK(purposes(two + exported("e")) == "SMMMMCCCM");
    CHECK(purposes(two + exported("d")) == "SMMMMCCCM");
    CHECK(purposes(two + exported("y")) == "SMCCCMMMM");
    CHECK(purposes(two + exported("b")) == "SMMMMMMMM");
  }
}
