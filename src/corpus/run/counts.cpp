#include "src/corpus/run/counts.h"

#include <nlohmann/json.hpp>

#include "src/base/errors.h"

namespace coppice {
namespace {

Amount amount_at(const Json& object, const char* key, const std::string& where) {
  const Json& amount = object_at(object, key, where);
  return {unsigned_at(amount, "documents", where), unsigned_at(amount, "text_bytes", where)};
}

std::map<std::string, uint64_t> numbers_at(const Json& object, const char* key, const std::string& where) {
  std::map<std::string, uint64_t> numbers;
  const Json& list = object_at(object, key, where);
  for (const auto& [name, number] : list.items()) numbers[name] = unsigned_at(list, name.c_str(), where);
  return numbers;
}

}  // namespace

Amount& Amount::operator+=(const Amount& other) {
  documents += other.documents;
  text_bytes += other.text_bytes;
  return *this;
}

RuleCounts& RuleCounts::operator+=(const RuleCounts& other) {
  first += other.first;
  alone += other.alone;
  would += other.would;
  return *this;
}

StepCounts& StepCounts::operator+=(const StepCounts& other) {
  seen += other.seen;
  kept += other.kept;
  changed += other.changed;
  measured += other.measured;
  for (const auto& [rule, counts] : other.rules) rules[rule] += counts;
  for (const auto& [name, count] : other.counted) counted[name] += count;
  return *this;
}

Json to_json(const Amount& amount) { return {{"documents", amount.documents}, {"text_bytes", amount.text_bytes}}; }

Json to_json(const SourceReport& report) {
  return {{"documents", report.documents},
          {"records", report.records},
          {"passed", report.passed},
          {"bad", report.bad},
          {"first_bad", report.first_bad}};
}

Json to_json(const StepCounts& counts) {
  Json rules = Json::object();
  for (const auto& [rule, of] : counts.rules)
    rules[rule] = {{"first", to_json(of.first)}, {"alone", to_json(of.alone)}, {"would", to_json(of.would)}};
  return {{"seen", to_json(counts.seen)}, {"kept", to_json(counts.kept)}, {"changed", counts.changed},
          {"measured", counts.measured},  {"rules", std::move(rules)},    {"counts", counts.counted}};
}

Json to_json(const FileCounts& counts) {
  Json steps = Json::object();
  for (const auto& [name, of] : counts.steps) steps[name] = to_json(of);
  return {{"source", to_json(counts.source)},
          {"before", to_json(counts.before)},
          {"behind", to_json(counts.behind)},
          {"steps", std::move(steps)}};
}

FileCounts file_counts_from(const Json& json, const std::string& where) {
  FileCounts counts{.before = amount_at(json, "before", where), .behind = amount_at(json, "behind", where)};
  const Json& source = object_at(json, "source", where);
  counts.source.documents = unsigned_at(source, "documents", where);
  counts.source.records = unsigned_at(source, "records", where);
  counts.source.passed = numbers_at(source, "passed", where);
  counts.source.bad = numbers_at(source, "bad", where);
  for (const Json& line : array_at(source, "first_bad", where))
    counts.source.first_bad.push_back(line.is_string() ? line.get<std::string>() : line.dump());
  for (const auto& [name, of] : object_at(json, "steps", where).items()) {
    StepCounts& step = counts.steps[name];
    step.seen = amount_at(of, "seen", where);
    step.kept = amount_at(of, "kept", where);
    step.changed = unsigned_at(of, "changed", where);
    step.measured = unsigned_at(of, "measured", where);
    step.counted = numbers_at(of, "counts", where);
    for (const auto& [rule, rule_counts] : object_at(of, "rules", where).items())
      step.rules[rule] = {amount_at(rule_counts, "first", where), amount_at(rule_counts, "alone", where),
                          amount_at(rule_counts, "would", where)};
  }
  return counts;
}

}  // namespace coppice
