// What decides a result, as JSON, from the marks of its options: an option that is added and marked `decides` is part
// of every identity from then on, and nobody has to think of it.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>

#include "src/base/json.h"
#include "src/base/option_mark.h"

namespace coppice {

/// Every option that decides, by its key. `besides`: options of other marks that fingerprints have always held.
template <class Options>
Json deciding(Options options, std::span<const std::string_view> besides = {}) {
  Json json = Json::object();
  auto field = [&](const char* key, const auto& value, Mark mark, const char*) {
    if (mark == Mark::decides || std::ranges::find(besides, std::string_view(key)) != besides.end()) json[key] = value;
  };
  options.visit_fields(field);
  return json;
}

/// Takes the options of `part` out of `json` and returns them.
template <class Options>
Json take_part(Json& json, Options part) {
  Json taken = Json::object();
  auto field = [&](const char* key, const auto&, Mark, const char*) {
    if (!json.contains(key)) return;
    taken[key] = std::move(json[key]);
    json.erase(key);
  };
  part.visit_fields(field);
  return taken;
}

}  // namespace coppice
