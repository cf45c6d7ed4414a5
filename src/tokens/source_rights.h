// Under which licence a source's documents stand and which stages may draw from them. It travels from [[data.source]]
// to the corpus, to the token shards and to the loader that reads them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"

namespace coppice {

struct SourceRights {
  std::string source, license;
  std::vector<std::string> stages;  // those that may draw from it; empty: all
  std::string where = {};           // who says so, for messages: file:line, or a sources.json
};

/// The first source that is closed to a stage; nullptr: none.
const SourceRights* closed_to(const std::vector<SourceRights>& rights, std::string_view stage);
/// "the source 'press', allowed in core alone (recipe.toml:12)"
std::string closed_text(const SourceRights& rights);

/// [{"name", "license", "stages"}] and back, `where` with them; UserError::bad_file for anything else.
Json rights_json(const std::vector<SourceRights>& rights);
std::vector<SourceRights> read_rights(const Json& sources, const std::string& where);

}  // namespace coppice
