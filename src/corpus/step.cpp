#include "src/corpus/step.h"

#include <nlohmann/json.hpp>

namespace coppice {

std::string details_of(const nlohmann::ordered_json& members) {
  if (members.empty()) return {};
  const std::string text = members.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return text.substr(1, text.size() - 2);
}

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
