#include "recipes/folder/stage_changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr size_t kMaxKeys = 6;  // of one stage

void collect(const Json& value, const std::string& path, std::map<std::string, std::string>& leaves) {
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, member] : value.items()) collect(member, path.empty() ? key : path + "." + key, leaves);
  } else if (value.is_array() && !value.empty()) {
    for (size_t i = 0; i < value.size(); ++i) collect(value[i], fmt::format("{}[{}]", path, i), leaves);
  } else {
    leaves[path] = value.dump();
  }
}

std::string shown(const std::map<std::string, std::string>& leaves, const std::string& path) {
  const auto found = leaves.find(path);
  if (found == leaves.end()) return "none";
  const bool hash =
      found->second.size() == 66 && found->second.find_first_not_of("0123456789abcdef\"") == std::string::npos;
  return printable(hash ? found->second.substr(1, 8) : found->second);
}

}  // namespace

std::map<std::string, std::string> json_leaves(const Json& value) {
  std::map<std::string, std::string> leaves;
  collect(value, "", leaves);
  return leaves;
}

std::string key_in_recipe(std::string path) {
  for (const std::string_view part : {"options.", "masks.", "distillation."})
    if (path.starts_with(part)) path.erase(0, part.size());
  return printable(path);
}

std::vector<std::string> changed_paths(const Json& held, const Json& wanted) {
  const std::map<std::string, std::string> before = json_leaves(held), now = json_leaves(wanted);
  std::set<std::string> paths;
  for (const auto& [leaves, others] : {std::pair(&before, &now), std::pair(&now, &before)})
    for (const auto& [path, value] : *leaves)
      if (const auto other = others->find(path);
          !path.starts_with("changes[") && (other == others->end() || other->second != value))
        paths.insert(path);
  return {paths.begin(), paths.end()};
}

std::string changed_keys(const Json& held, const Json& wanted) {
  const std::map<std::string, std::string> before = json_leaves(held), now = json_leaves(wanted);
  const std::vector<std::string> paths = changed_paths(held, wanted);
  if (paths.empty() && held.contains("changes")) return "changed midway";
  std::string text;
  for (const std::string& path : std::span(paths).first(std::min(paths.size(), kMaxKeys))) {
    text += text.empty() ? "" : ", ";
    if (path == "data") {
      text += "the data";
    } else if (path.starts_with("inputs.")) {
      text += "its input " + printable(path.substr(7));
    } else {
      text += fmt::format("{} {} -> {}", key_in_recipe(path), shown(before, path), shown(now, path));
    }
  }
  return paths.size() > kMaxKeys ? text + fmt::format(" and {} more", paths.size() - kMaxKeys) : text;
}

}  // namespace coppice
