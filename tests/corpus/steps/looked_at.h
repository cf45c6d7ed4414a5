// A step of the table as a recipe's [[data.step]] makes it, and what it does with one document.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/step.h"
#include "tests/scratch_folder.h"

namespace coppice {

/// `options` are lines of TOML.
inline std::shared_ptr<const DocumentStep> document_step(const std::string& kind, const std::string& options) {
  const ScratchFolder folder("step");
  const auto file = folder.write("step.toml", options);
  OptionTable table = RecipeSource::load(file, {}, {}).root();
  for (const StepKind* row : step_kinds()) {
    if (row->kind != kind) continue;
    auto step = std::dynamic_pointer_cast<const DocumentStep>(row->read(table));
    table.finish();
    return step;
  }
  throw InternalError("no step of kind " + kind);
}

/// What a look has found.
struct Looked {
  std::map<std::string, double> values;  // of the rules that were measured
  std::string first;                     // the first rule that drops; empty: the document stays
};

inline Looked look_at(const DocumentStep& step, DocumentLook& look, Document& document, bool all = true) {
  const std::vector<Rule> rules = step.rules();
  std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
  look.look(document, values, all);
  Looked looked;
  for (size_t i = 0; i < rules.size(); ++i) {
    if (!std::isnan(values[i])) looked.values[rules[i].name] = values[i];
    if (looked.first.empty() && rules[i].drops(values[i])) looked.first = rules[i].name;
  }
  return looked;
}

inline Looked look_at(const DocumentStep& step, Document& document, bool all = true) {
  return look_at(step, *step.start(), document, all);
}

}  // namespace coppice
