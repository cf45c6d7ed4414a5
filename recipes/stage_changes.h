// What a changed recipe changes: the keys in which the identity of a result differs from what the recipe asks for now.
#pragma once

#include <map>
#include <string>

#include "src/base/json.h"

namespace coppice {

/// Leaves of a JSON value by path, as JSON text: stage.name, files[2].sha256.
std::map<std::string, std::string> json_leaves(const Json& value);
/// "lr 0.01 -> 0.003, its input dense": what differs between two identities of a stage, in the recipe's words.
std::string changed_keys(const Json& held, const Json& wanted);

}  // namespace coppice
