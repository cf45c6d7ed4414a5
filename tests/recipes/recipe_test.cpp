// The recipe language: what it resolves to and what it refuses before anything starts.
#include "recipes/language/recipe.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "src/base/errors.h"

using namespace coppice;

namespace {

/// A source of two layers cut to `widths` by `scores`; with `masks`, after learning masks for that very budget.
std::string cut_recipe(const std::string& widths, bool masks) {
  return std::string(R"(
name = "cut"
[[data.domain]]
name = "prose"
path = "corpus/prose.jsonl"
[tokenizer]
vocab_size = 384
[model.source]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
intermediate_size = 96
[model.student]
intermediate_size = )") +
         widths + R"(
[[stage]]
name = "dense"
kind = "train"
model = "source"
tokens = 4096
)" + (masks ? "[[stage]]\nname = \"masks\"\nkind = \"learn_masks\"\nfrom = \"dense\"\ntokens = 4096\n" : "") +
         "[[stage]]\nname = \"pruned\"\nkind = \"prune\"\nscores = \"magnitude\"\nfrom = \"dense\"\n";
}

Recipe load_text(const std::string& text) {
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("coppice_recipe_" + std::to_string(getpid()) + ".toml");
  std::ofstream(path) << text;
  struct Remove {
    const std::filesystem::path& path;
    ~Remove() { std::filesystem::remove(path); }
  } remove{path};
  return load_recipe(path.string(), {}, {});
}

std::string refusal(const std::string& text) {
  try {
    load_text(text);
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::recipe);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("intermediate_size: one number for every layer, or an array with one for each") {
    CHECK(load_text(cut_recipe("32", true)).model_after("pruned").intermediate_size == std::vector<int64_t>{32, 32});
    const Recipe each = load_text(cut_recipe("[32, 16]", false));
    CHECK(each.model_after("dense").intermediate_size == std::vector<int64_t>{96, 96});
    CHECK(each.model_after("pruned").intermediate_size == std::vector<int64_t>{32, 16});
    CHECK(each.resolved.find("intermediate_size = [32, 16]") != std::string::npos);
    CHECK(each.resolved.find("intermediate_size = 96") != std::string::npos);
    CHECK(load_text(each.resolved).models.at("student").intermediate_size == std::vector<int64_t>{32, 16});
  }

  TEST_CASE("intermediate_size: what cannot be cut is refused with the numbers") {
    CHECK(refusal(cut_recipe("[32, 16, 8]", false)).find("got 3 widths, expected one for each of 2 layers") !=
          std::string::npos);
    CHECK(refusal(cut_recipe("[32, 97]", false)).find("got 97, expected at most 96") != std::string::npos);
    CHECK(refusal(cut_recipe("[32, \"x\"]", false)).find("an integer or an array of integers") != std::string::npos);
    CHECK(refusal(cut_recipe("[32, 16]", true)).find("[32, 16]; learned masks need one width for all layers") !=
          std::string::npos);
  }
}
