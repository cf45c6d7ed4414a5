// What a changed recipe changes: the keys in which the identity of a result differs from what the recipe asks for now.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "src/base/json.h"

namespace coppice {

/// Leaves of a JSON value by path, as JSON text: stage.name, files[2].sha256.
std::map<std::string, std::string> json_leaves(const Json& value);
/// Paths of the leaves in which two identities of a stage differ, but for what was changed midway (`changes`).
std::vector<std::string> changed_paths(const Json& held, const Json& wanted);
/// Such a path as the recipe addresses it: options of a stage and the parts they consist of have no name of their own
/// there.
std::string key_in_recipe(std::string path);
/// "lr 0.01 -> 0.003, its input dense": what differs between two identities of a stage, in the recipe's words.
std::string changed_keys(const Json& held, const Json& wanted);

}  // namespace coppice
