#include "src/corpus/step.h"

namespace coppice {

bool GroupDecisions::goes(std::span<const Rule> rules) {
  Document unseen;
  std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
  std::string details;
  look(unseen, values, details);
  for (size_t i = 0; i < rules.size(); ++i)
    if (rules[i].drops(values[i])) return true;
  return false;
}

}  // namespace coppice
