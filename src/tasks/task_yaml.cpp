#include "src/tasks/task_yaml.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/yaml.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = uint64_t{1} << 20;
constexpr int kMaxIncludes = 4;

Json load(const fs::path& file, int depth) {
  Json config = parse_yaml(read_file(file, kMaxBytes), file.string(), {"!function"});
  if (!config.is_object()) throw UserError::bad_file(file.string(), "expected a YAML mapping");
  if (!config.contains("include")) return config;
  const Json include = config["include"];
  const std::string name = include.is_string() ? include.get<std::string>() : std::string();
  if (name.empty() || name.find('/') != std::string::npos || name == "..")
    throw UserError::bad_file(file.string(), "include: expected the name of a file beside this one");
  if (depth == kMaxIncludes)
    throw UserError::bad_file(file.string(), fmt::format("include: deeper than {} files", kMaxIncludes));
  Json whole = load(file.parent_path() / name, depth + 1);
  config.erase("include");
  for (auto& [key, value] : config.items()) whole[key] = std::move(value);
  return whole;
}

}  // namespace

Json read_task_yaml(const fs::path& file) { return load(file, 0); }

}  // namespace coppice
