#include "src/corpus/run/identity_difference.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace coppice {
namespace {

std::string shown(const Json& value) {
  if (value == "") return "nothing";
  std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  if (text.ends_with(".0") && text.find_first_not_of("-0123456789.") == text.npos) text.resize(text.size() - 2);
  return text.size() > 200 ? text.substr(0, 200) + "..." : text;
}

/// `values was all, is none`.
std::string changed(std::string_view key, const Json& before, const Json& now) {
  if (before.is_null()) return fmt::format("{} was not set, is {}", key, shown(now));
  if (now.is_null()) return fmt::format("{} was {}, is not set", key, shown(before));
  return fmt::format("{} was {}, is {}", key, shown(before), shown(now));
}

Json member(const Json& object, const std::string& key) {
  return object.is_object() && object.contains(key) ? object[key] : Json();
}

/// The first member that differs; empty: none.
std::string members_difference(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.items())
    if (const Json old = member(before, key); old != value) return changed(key, old, value);
  for (const auto& [key, old] : before.items())
    if (!now.contains(key)) return changed(key, old, Json());
  return "";
}

std::string step_difference(const Json& before, const Json& now) {
  for (const char* key : {"kind", "only"})
    if (before[key] != now[key]) return changed(key, before[key], now[key]);
  if (const std::string options = members_difference(member(before, "options"), now["options"]); !options.empty())
    return options;
  const Json old = member(before, "inputs"), &here = now["inputs"];
  for (size_t i = 0; i < std::max(old.size(), here.size()); ++i)
    if (const Json was = i < old.size() ? old[i] : Json(), is = i < here.size() ? here[i] : Json(); was != is)
      return changed("a file that it reads", was, is);
  return before == now ? "" : changed("what it is made of", member(before, "fingerprint"), now["fingerprint"]);
}

/// Of lists whose members have names: one that came or went, one that differs, another order.
template <class Differ>
std::string list_difference(const std::string& what, const Json& before, const Json& now, const Differ& differ) {
  const auto place_of = [](const Json& list, const Json& name) {
    return std::ranges::find_if(list, [&](const Json& item) { return item["name"] == name; }) - list.begin();
  };
  const auto called = [&](const Json& list, size_t i) {
    return fmt::format("{} {} '{}'", what, i + 1, list[i].value("name", ""));
  };
  for (size_t i = 0; i < before.size(); ++i)
    if (place_of(now, before[i]["name"]) == static_cast<std::ptrdiff_t>(now.size()))
      return called(before, i) + " was there, is gone";
  for (size_t i = 0; i < now.size(); ++i) {
    const auto old = static_cast<size_t>(place_of(before, now[i]["name"]));
    if (old == before.size()) return called(now, i) + " was not there";
    if (const std::string text = differ(before[old], now[i]); !text.empty()) return called(now, i) + ": " + text;
  }
  for (size_t i = 0; i < now.size(); ++i)
    if (before[i]["name"] != now[i]["name"]) return called(now, i) + " stood elsewhere";
  return "";
}

}  // namespace

Json options_json(std::string_view toml) {
  Json options = Json::object();
  std::map<std::string, int> numbers;  // of the tables of an array
  std::string table;
  while (!toml.empty()) {
    const size_t end = std::min(toml.find('\n'), toml.size());
    const std::string_view line = toml.substr(0, end);
    toml.remove_prefix(std::min(end + 1, toml.size()));
    if (line.starts_with('[')) {  // its own header, data.step, opens that of a table below it
      const bool is_array = line.starts_with("[[");
      std::string name(line.substr(is_array ? 2 : 1, line.size() - (is_array ? 4 : 2)));
      if (name.starts_with("data.step.")) name.erase(0, std::string_view("data.step.").size());
      table = is_array ? fmt::format("{}.{}.", name, ++numbers[name]) : name + ".";
    } else if (const size_t equals = line.find(" = "); equals != line.npos) {
      options[table + std::string(line.substr(0, equals))] = line.substr(equals + 3);
    }
  }
  return options;
}

std::string identity_difference(const Json& before, const Json& now) {
  if (const auto text = list_difference("source", member(before, "sources"), now["sources"], members_difference);
      !text.empty())
    return text;
  if (const auto text = list_difference("step", member(before, "steps"), now["steps"], step_difference); !text.empty())
    return text;
  for (const char* key : {"values", "doc_timeout_s", "keep_removed_text"})
    if (member(before, key) != now[key]) return changed(key, member(before, key), now[key]);
  if (member(before, "files") != now["files"])
    return fmt::format("input files were {}, are {}", shown(member(before, "files")), shown(now["files"]));
  return "input files have other names";
}

std::string files_difference(const std::vector<std::string>& before, const std::vector<std::string>& now) {
  const auto [old, here] = std::ranges::mismatch(before, now);
  if (old != before.end() && (here == now.end() || *old < *here)) return *old + " was there, is gone";
  return here == now.end() ? "" : *here + " was not there";
}

}  // namespace coppice
