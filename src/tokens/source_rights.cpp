#include "src/tokens/source_rights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"

namespace coppice {

const SourceRights* closed_to(const std::vector<SourceRights>& rights, std::string_view stage) {
  const auto closed = std::ranges::find_if(rights, [&](const SourceRights& source) {
    return !source.stages.empty() && std::ranges::find(source.stages, stage) == source.stages.end();
  });
  return closed == rights.end() ? nullptr : &*closed;
}

std::string closed_text(const SourceRights& rights) {
  return fmt::format("the source '{}', allowed in {} alone ({})", rights.source, fmt::join(rights.stages, ", "),
                     rights.where);
}

Json rights_json(const std::vector<SourceRights>& rights) {
  Json sources = Json::array();
  for (const SourceRights& source : rights)
    sources.push_back({{"name", source.source}, {"license", source.license}, {"stages", source.stages}});
  return sources;
}

std::vector<SourceRights> read_rights(const Json& sources, const std::string& where) {
  std::vector<SourceRights> rights;
  for (const Json& source : sources) {
    SourceRights& read = rights.emplace_back();
    read.where = where;
    read.source = string_at(source, "name", where);
    read.license = string_at(source, "license", where);
    for (const Json& stage : array_at(source, "stages", where)) {
      if (!stage.is_string()) throw UserError::bad_file(where, "stages of a source: expected names");
      read.stages.push_back(stage.get<std::string>());
    }
  }
  return rights;
}

}  // namespace coppice
