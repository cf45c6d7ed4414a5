// What a step makes of one document.
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "src/corpus/step.h"

namespace coppice::test {

struct LookedThrough {
  Document document;  // as the step leaves it
  std::vector<double> values;
  std::string dropped_by;  // the first rule that drops it; empty where it stays
};

inline LookedThrough look_at(const Step& step, const std::string& text) {
  LookedThrough looked{.document = {.id = "one", .text = text}};
  const std::vector<Rule> rules = step.rules();
  looked.values.assign(rules.size(), std::numeric_limits<double>::quiet_NaN());
  dynamic_cast<const DocumentStep&>(step).start()->look(looked.document, looked.values, /*all=*/true);
  for (size_t i = 0; i < rules.size() && looked.dropped_by.empty(); ++i)
    if (rules[i].drops(looked.values[i])) looked.dropped_by = rules[i].name;
  return looked;
}

}  // namespace coppice::test
