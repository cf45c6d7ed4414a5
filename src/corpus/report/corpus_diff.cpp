#include "src/corpus/report/corpus_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/corpus/report/kept_documents.h"
#include "src/corpus/report/removal_lines.h"
#include "src/corpus/report/text_table.h"

namespace coppice {
namespace {

using Ids = std::vector<uint64_t>;  // sorted

Ids kept_ids(const CompleteCorpus& corpus) {
  Ids ids;
  for (const SourceFile& file : corpus.files)
    read_kept(corpus, file, [&](const Document& document) { ids.push_back(document_hash(document.id)); });
  std::ranges::sort(ids);
  return ids;
}

OnlyThere only_there(const Ids& here, const Ids& there, const CompleteCorpus& other) {
  Ids only;
  std::ranges::set_difference(here, there, std::back_inserter(only));
  OnlyThere found{.documents = only.size(), .unseen = only.size()};
  for (const ToldStep& step : other.steps)
    for (const SourceFile& file : other.files)
      read_removals(other.removed(step, file), [&](const RemovalLine& line) {
        if (!std::ranges::binary_search(only, document_hash(line.id))) return;
        ++found.removed_by[{step.name, line.rule}];
        found.unseen -= found.unseen > 0;
      });
  return found;
}

std::string shown(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/// compare_steps() says what of it decides.
bool is_shown_by_step(std::string_view key) { return key == "fingerprint" || key == "options" || key == "inputs"; }

/// Members of objects that both have; `of` names the object.
void compare_members(const Json& a, const Json& b, const std::string& of, std::vector<std::string>& lines) {
  for (const auto& [key, value] : a.items())
    if (const auto found = b.find(key); found != b.end() && *found != value && !is_shown_by_step(key))
      lines.push_back(fmt::format("{}{}: {}, {}", of, key, shown(value), shown(*found)));
}

void compare_named(const Json& a, const Json& b, const char* list, const char* what, std::vector<std::string>& lines) {
  const auto find = [&](const Json& in, const Json& name) {
    for (const Json& item : in.at(list))
      if (item.at("name") == name) return &item;
    return static_cast<const Json*>(nullptr);
  };
  for (const Json& item : a.at(list)) {
    const std::string name = shown(item.at("name"));
    if (const Json* other = find(b, item.at("name")))
      compare_members(item, *other, fmt::format("{} '{}': ", what, name), lines);
    else
      lines.push_back(fmt::format("{} '{}': in the first alone", what, name));
  }
  for (const Json& item : b.at(list))
    if (find(a, item.at("name")) == nullptr)
      lines.push_back(fmt::format("{} '{}': in the second alone", what, shown(item.at("name"))));
}

void compare_steps(const CompleteCorpus& a, const CompleteCorpus& b, std::vector<std::string>& lines) {
  for (const ToldStep& step : a.steps) {
    const auto other = std::ranges::find(b.steps, step.name, &ToldStep::name);
    if (other == b.steps.end()) continue;
    const size_t before = lines.size();
    for (const ToldRule& told : step.rules)
      for (const ToldRule& of : other->rules)
        if (told.rule.name == of.rule.name && (told.rule.least != of.rule.least || told.rule.most != of.rule.most))
          lines.push_back(fmt::format("{}.{}: drops {}, {}", step.name, told.rule.name, limits_text(told.rule),
                                      limits_text(of.rule)));
    if (lines.size() == before && step.fingerprint != other->fingerprint)
      lines.push_back(fmt::format("step '{}': other options, or other lists and models that it reads", step.name));
  }
}

std::string only_text(const OnlyThere& only, const char* title, const char* other) {
  std::string text = fmt::format("\n{}: {} documents\n", title, only.documents);
  if (only.documents == 0) return text;
  std::vector<std::pair<std::pair<std::string, std::string>, uint64_t>> reasons(only.removed_by.begin(),
                                                                                only.removed_by.end());
  std::ranges::stable_sort(reasons, std::ranges::greater(), [](const auto& reason) { return reason.second; });
  std::vector<std::vector<std::string>> rows;
  for (const auto& [reason, count] : reasons)
    rows.push_back({reason.first, reason.second, fmt::format("{}", count), percent_text(count, only.documents)});
  if (only.unseen > 0)
    rows.push_back({"(never there)", "", fmt::format("{}", only.unseen), percent_text(only.unseen, only.documents)});
  return text + text_table({fmt::format("removed by the {}", other), "rule", "documents", "share"}, rows, 2);
}

}  // namespace

CorpusDiff diff_corpora(const CompleteCorpus& a, const CompleteCorpus& b) {
  CorpusDiff diff{.kept_a = a.out, .kept_b = b.out};
  const Ids ids_a = kept_ids(a), ids_b = kept_ids(b);
  Ids both;
  std::ranges::set_intersection(ids_a, ids_b, std::back_inserter(both));
  diff.both = both.size();
  diff.only_a = only_there(ids_a, ids_b, b);
  diff.only_b = only_there(ids_b, ids_a, a);
  for (const char* key : {"files", "values", "doc_timeout_s"})
    if (a.made_of.at(key) != b.made_of.at(key))
      diff.settings.push_back(fmt::format("{}: {}, {}", key, shown(a.made_of.at(key)), shown(b.made_of.at(key))));
  compare_named(a.made_of, b.made_of, "sources", "source", diff.settings);
  compare_named(a.made_of, b.made_of, "steps", "step", diff.settings);
  compare_steps(a, b, diff.settings);
  return diff;
}

std::string diff_text(const CorpusDiff& diff) {
  const auto row = [](const char* name, const Amount& amount) {
    return std::vector<std::string>{name, fmt::format("{}", amount.documents), fmt::format("{}", amount.text_bytes)};
  };
  std::string text =
      text_table({"", "documents", "bytes of text"}, {row("first", diff.kept_a), row("second", diff.kept_b)}, 1) +
      fmt::format("\nkept by both: {} documents\n", diff.both) +
      only_text(diff.only_a, "kept by the first alone", "second") +
      only_text(diff.only_b, "kept by the second alone", "first");
  text += diff.settings.empty() ? "\nno setting differs\n" : "\nsettings that differ (first, second):\n";
  for (const std::string& line : diff.settings) text += "  " + printable(line) + "\n";
  return text;
}

}  // namespace coppice
