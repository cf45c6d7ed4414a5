// Steps made from the text of a recipe's [[data.step]].
#pragma once

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>

#include "src/cli/options.h"
#include "src/corpus/step.h"
#include "tests/scratch_folder.h"

namespace coppice::test {

/// `text`: lines of a table with `kind = ...`, written to my.toml in the scratch folder from line 2 on.
inline std::shared_ptr<const Step> step_of(const ScratchFolder& scratch, const std::string& text) {
  spill(scratch / "my.toml", "[[data.step]]\n" + text);
  OptionTable root = RecipeSource::load(scratch / "my.toml", {}, {}).root();
  OptionTable data = root.table("data");
  OptionTable table = data.tables("step").at(0);
  std::string kind;
  table.take("kind", kind, "kind");
  const auto row = std::ranges::find_if(step_kinds(), [&](const StepKind* one) { return one->kind == kind; });
  if (row == step_kinds().end()) throw std::runtime_error("no step " + kind);
  std::shared_ptr<const Step> step = (*row)->read(table);
  root.finish();
  return step;
}

/// The error that making a step ends in; "" without one.
inline std::string refusal_of_step(const ScratchFolder& scratch, const std::string& text) {
  try {
    step_of(scratch, text);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace coppice::test
