#include "src/text/document_metadata.h"

#include <nlohmann/json.hpp>

namespace coppice {
namespace {

using OrderedJson = nlohmann::ordered_json;

/// What stands there, whatever numbers it has; an empty object where it is no JSON that this library reads (1e400,
/// NaN).
OrderedJson parsed(const Document& document) {
  OrderedJson members = OrderedJson::parse("{" + document.metadata + "}", nullptr, /*allow_exceptions=*/false);
  return members.is_discarded() ? OrderedJson::object() : members;
}

}  // namespace

void set_metadata(Document& document, std::string_view name, const Json& value) {
  OrderedJson members = parsed(document);
  const auto text = [](const auto& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); };
  if (!members.contains(name)) {
    if (!document.metadata.empty()) document.metadata += ',';
    document.metadata += text(Json(std::string(name))) + ":" + text(value);
    return;
  }
  members[std::string(name)] = OrderedJson::parse(text(value));
  const std::string all = text(members);
  document.metadata = all.substr(1, all.size() - 2);
}

std::optional<Json> find_metadata(const Document& document, std::string_view name) {
  if (document.metadata.find(name) == std::string::npos) return std::nullopt;
  const OrderedJson members = parsed(document);
  const auto found = members.find(name);
  return found == members.end() ? std::nullopt : std::optional<Json>(*found);
}

std::string metadata_text(const Document& document, std::string_view name) {
  const std::optional<Json> found = find_metadata(document, name);
  return found && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace coppice
