#include "src/tasks/task_yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxBytes = uint64_t{1} << 20;
constexpr int kMaxNesting = 32, kMaxNodes = 100'000, kMaxIncludes = 4;

class Converter {
 public:
  explicit Converter(const fs::path& file) : file_(file.string()) {}

  Json convert(const YAML::Node& node, int nesting = 0) {
    if (nesting > kMaxNesting) refuse(node, fmt::format("nested deeper than {}", kMaxNesting));
    if (++nodes_ > kMaxNodes) refuse(node, fmt::format("more than {} nodes", kMaxNodes));
    const std::string& tag = node.Tag();
    if (tag == "!function" && node.IsScalar()) return "!function " + node.Scalar();
    if (!tag.empty() && tag != "?" && tag != "!") refuse(node, fmt::format("tag '{}' is not known", printable(tag)));
    if (node.IsSequence()) {
      Json list = Json::array();
      for (const YAML::Node& element : node) list.push_back(convert(element, nesting + 1));
      return list;
    }
    if (node.IsMap()) {
      Json object = Json::object();
      for (const auto& member : node) {
        const YAML::Node &key = member.first, &value = member.second;
        if (!key.IsScalar()) refuse(node, "a key that is no text");
        if (object.contains(key.Scalar())) refuse(key, fmt::format("key '{}' twice", printable(key.Scalar())));
        object[key.Scalar()] = convert(value, nesting + 1);
      }
      return object;
    }
    if (node.IsNull()) return nullptr;
    return tag == "!" ? Json(node.Scalar()) : plain_scalar(node.Scalar());  // "!": it was quoted
  }

 private:
  [[noreturn]] void refuse(const YAML::Node& node, const std::string& message) const {
    throw UserError::bad_file(fmt::format("{}:{}", file_, node.Mark().line + 1), message);
  }

  /// YAML 1.1 as PyYAML resolves it; octal, hexadecimal and sexagesimal numbers stay text.
  static Json plain_scalar(const std::string& text) {
    constexpr std::array kNull = {"~", "null", "Null", "NULL", ""};
    constexpr std::array kTrue = {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};
    constexpr std::array kFalse = {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"};
    const auto among = [&](const auto& words) { return std::ranges::find(words, text) != words.end(); };
    if (among(kNull)) return nullptr;
    if (among(kTrue)) return true;
    if (among(kFalse)) return false;
    const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
    const char* end = text.data() + text.size();
    const bool octal = text.size() > 1 && text[0] == '0' && text.find('.') == std::string::npos;
    int64_t whole = 0;
    if (const auto [stop, error] = std::from_chars(begin, end, whole); !octal && error == std::errc() && stop == end)
      return whole;
    double number = 0;  // PyYAML wants a point in it
    if (text.find('.') != std::string::npos)
      if (const auto [stop, error] = std::from_chars(begin, end, number); error == std::errc() && stop == end)
        return number;
    return text;
  }

  std::string file_;
  int nodes_ = 0;
};

Json load(const fs::path& file, int depth) {
  Json config;
  try {
    config = Converter(file).convert(YAML::Load(read_file(file, kMaxBytes)));
  } catch (const YAML::Exception& error) {
    throw UserError::bad_file(fmt::format("{}:{}", file.string(), error.mark.line + 1), printable(error.msg));
  }
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
