#include "recipes/run/before_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/device.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {

const Tokenizer* given_tokenizer(const Recipe& recipe, Missing missing) {
  const TokenizerOptions& options = recipe.tokenizer;
  if (options.path.empty() || (missing == Missing::allowed && !std::filesystem::exists(options.path))) return nullptr;
  if (recipe.sources->holds(options.path)) return nullptr;  // gone: the data stage has it already
  const Tokenizer& tokenizer = recipe.sources->tokenizer(options.path);
  if (tokenizer.vocab_size() != options.vocab_size)
    throw UserError::recipe("tokenizer.vocab_size",
                            fmt::format("got {}, but {} holds {} pieces; set vocab_size = {}", options.vocab_size,
                                        options.path, tokenizer.vocab_size(), tokenizer.vocab_size()));
  return &tokenizer;
}

void check_before_work(const Recipe& recipe, Missing missing, const std::vector<std::string>& done,
                       const Tokenizer* trained) {
  const BeforeWork before{.recipe = recipe,
                          .missing = missing,
                          .tokenizer = trained != nullptr ? trained : given_tokenizer(recipe, missing)};
  for (const Stage& stage : recipe.stages) {
    const auto check = kind_of(stage).check;
    if (check == nullptr || goes_by_record(recipe, stage) || std::ranges::find(done, stage.name) != done.end())
      continue;
    try {
      check(before, stage);
    } catch (const UserError& error) {
      const std::string text = error.what(), place = stage.where + ": ";
      const bool placed = text.starts_with(place);  // which comes first
      throw UserError(error.code(), fmt::format("{}stage '{}': {}", placed ? place : "", stage.name,
                                                placed ? text.substr(place.size()) : text));
    }
  }
}

void check_placement(const Stage& stage) {
  if (!kind_of(stage).computes) return;
  const std::string& device = stage.placement.device;
  if (device == "auto") return;
  if (const std::string why = why_not_here(find_device(device).value()); !why.empty())
    throw DeviceError::unavailable(
        fmt::format("stage '{}': device = \"{}\": {}; give device = \"cpu\"{}", stage.name, device, why,
                    built_with_cuda() ? " or \"auto\"" : ", or build the preset cuda (docs/gpu.md)"));
}

void check_placements(const Recipe& recipe, const std::vector<std::string>& done) {
  for (const Stage& stage : recipe.stages)
    if (std::ranges::find(done, stage.name) == done.end()) check_placement(stage);
}

}  // namespace coppice
