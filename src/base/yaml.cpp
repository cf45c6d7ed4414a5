#include "src/base/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"

namespace coppice {
namespace {

constexpr int kMaxNesting = 32, kMaxNodes = 100'000;

class Converter {
 public:
  Converter(const std::string& where, const std::vector<std::string>& tags) : where_(where), tags_(tags) {}

  Json convert(const YAML::Node& node, int nesting = 0) {
    if (nesting > kMaxNesting) refuse(node, fmt::format("nested deeper than {}", kMaxNesting));
    if (++nodes_ > kMaxNodes) refuse(node, fmt::format("more than {} nodes", kMaxNodes));
    const std::string& tag = node.Tag();
    if (node.IsScalar() && std::ranges::find(tags_, tag) != tags_.end()) return tag + " " + node.Scalar();
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
    throw UserError::bad_file(fmt::format("{}:{}", where_, node.Mark().line + 1), message);
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

  const std::string& where_;
  const std::vector<std::string>& tags_;
  int nodes_ = 0;
};

}  // namespace

Json parse_yaml(const std::string& text, const std::string& where, const std::vector<std::string>& tags) {
  try {
    return Converter(where, tags).convert(YAML::Load(text));
  } catch (const YAML::Exception& error) {
    throw UserError::bad_file(fmt::format("{}:{}", where, error.mark.line + 1), printable(error.msg));
  }
}

}  // namespace coppice
