// YAML that people write, read with distrust, as JSON: scalars typed as PyYAML types them.
#pragma once

#include <string>
#include <vector>

#include "src/base/json.h"

namespace coppice {

/// One document. Scalars with one of these tags become texts: "!function module.name". UserError::bad_file at
/// <where>:<line> for what is no YAML, a key that is no text or appears twice, nesting deeper than 32, aliases that
/// unfold beyond 100,000 nodes, and other tags. How much text there may be is the caller's to bound.
Json parse_yaml(const std::string& text, const std::string& where, const std::vector<std::string>& tags = {});

}  // namespace coppice
