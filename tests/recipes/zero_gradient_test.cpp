// A gradient that is exactly 0: said once, at the step where enough zeros came in a row.
#include <doctest/doctest.h>

#include "recipes/stages/journal.h"
#include "tests/recipes/program.h"

using namespace coppice::test;

TEST_SUITE("unit") {
  TEST_CASE("ZeroGradientWatch: ten zeros in a row, once; a short stage by all it has") {
    coppice::ZeroGradientWatch watch("stage 's': the gradient", 100);
    for (int step = 1; step <= 9; ++step) CHECK(watch.look(0, step).empty());
    CHECK(watch.look(1e-30, 10).empty());
    for (int step = 11; step <= 19; ++step) CHECK(watch.look(0, step).empty());
    CHECK(watch.look(0, 20).starts_with("stage 's': the gradient is exactly 0 in steps 11 to 20: nothing is learned"));
    for (int step = 21; step <= 60; ++step) CHECK(watch.look(0, step).empty());
    coppice::ZeroGradientWatch brief("b", 3);
    CHECK(brief.look(0, 1).empty());
    CHECK(brief.look(0, 2).empty());
    CHECK(brief.look(0, 3).starts_with("b is exactly 0 in steps 1 to 3"));
    coppice::ZeroGradientWatch broken("b", 3);
    for (int step = 1; step <= 3; ++step) CHECK(broken.look(std::nan(""), step).empty());
  }
}

TEST_SUITE("recipe") {
  TEST_CASE(
      "zero gradient: scores that are decided before they learn are named once with the steps; a gradient that is "
      "merely small is not") {
    const Scratch scratch("zero");
    write_tiny_run(scratch.path);
    const std::string tiny = slurp(scratch.path / "tiny.toml");
    const std::string training = "tokens = 10240\nseq_len = 64\nbatch_tokens = 512\n";
    spill(scratch.path / "zero.toml", tiny.substr(0, tiny.find("[[stage]]")) +
                                          "[[stage]]\nname = \"dense\"\nkind = \"train\"\nmodel = \"source\"\n" +
                                          training +
                                          "[[stage]]\nname = \"own\"\nkind = \"train\"\nfrom = \"dense\"\nteacher = "
                                          "\"dense\"\nloss = \"kl\"\nteacher_weight = "
                                          "1.0\nz_loss = 0.0\nweight_decay = 0.0\n" +
                                          training +
                                          "[[stage]]\nname = \"masks\"\nkind = \"learn_masks\"\nfrom = "
                                          "\"dense\"\ntop_k_epsilon = 1e-7\nfinal_top_k_epsilon = "
                                          "1e-7\non_collapse = \"warn\"\n" +
                                          training);
    const Outcome done = run(scratch.path, {"run", "zero.toml", "--out", "run"});
    INFO(done.err);
    REQUIRE(done.code == 0);
    const auto count = [&](const std::string& part) {
      size_t found = 0;
      for (size_t at = done.err.find(part); at != std::string::npos; at = done.err.find(part, at + 1)) ++found;
      return found;
    };
    CHECK(count("warning: stage 'masks': the gradient of the mask scores is exactly 0 in steps 2 to 11: nothing is "
                "learned") == 1);
    CHECK(count("stage 'dense': the gradient") == 0);
    CHECK(count("stage 'own': the gradient") <=
          1);  // of a student that is its own teacher: rounding, or with some instruction sets 0, said once
  }
}
