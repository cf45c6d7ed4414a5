#include "src/corpus/step.h"

#include <nlohmann/json.hpp>

namespace coppice {

std::string details_of(const nlohmann::ordered_json& members) {
  if (members.empty()) return {};
  const std::string text = members.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return text.substr(1, text.size() - 2);
}

}  // namespace coppice
