#include "src/corpus/run/document_chain.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "src/base/errors.h"
#include "src/corpus/deadline.h"

namespace coppice {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();
constexpr double kNoLimit = std::numeric_limits<double>::infinity();

const std::string& rule_name(const std::vector<Rule>& rules, size_t rule) {
  static const std::string emptied = kEmptied, timeout = kTimeout;
  return rule < rules.size() ? rules[rule].name : rule == rules.size() ? emptied : timeout;
}

[[noreturn]] void refuse_page(const CorpusStep& step, const Document& document) {
  throw UserError::recipe(step.where, fmt::format("step '{}' got the page '{}', expected texts; add a [[data.step]] "
                                                  "with kind = \"extract\" in front of it",
                                                  step.name, printable(document.id)));
}

}  // namespace

DocumentChain::DocumentChain(std::vector<ChainLink> links, ChainOptions options)
    : links_(std::move(links)), options_(options) {
  for (const ChainLink& link : links_) {  // a rule that removes nothing is told, too
    StepCounts& counts = counts_[link.step->name];
    for (const Rule& rule : link.step->rules) counts.rules[rule.name];
    counts_of_.push_back(&counts);
    times_.push_back({.step = link.step->name});
  }
}

DocumentChain::Verdict DocumentChain::ask(const ChainLink& link, Document& document, bool all, std::string& details) {
  const std::vector<Rule>& rules = link.step->rules;
  Verdict verdict;
  asked_.assign(rules.size(), kNotMeasured);
  bool too_long = false;
  const double begin = thread_cpu_s(), most = options_.doc_timeout_s > 0 ? options_.doc_timeout_s : kNoLimit;
  set_deadline(begin + most);
  try {
    verdict.changed =
        link.look != nullptr ? link.look->look(document, asked_, all) : link.decisions->look(document, asked_, details);
  } catch (const DocumentTimeout&) {
    too_long = true;
  }
  const double seconds = thread_cpu_s() - begin;
  set_deadline(kNoLimit);
  times_[static_cast<size_t>(&link - links_.data())].seconds += seconds;
  too_long |= seconds > most;
  if (too_long) {  // where it was interrupted depends on the machine
    asked_.assign(rules.size(), kNotMeasured);
    verdict.drops = {rules.size() + 1};
    return verdict;
  }
  for (size_t i = 0; i < rules.size(); ++i)
    if (rules[i].drops(asked_[i])) verdict.drops.push_back(i);
  if (verdict.drops.empty() && verdict.changed && document.text.empty()) verdict.drops = {rules.size()};
  return verdict;
}

/// The links from `begin` on. At the first one that gives another text, it and the way up to there are set aside.
void DocumentChain::go(size_t begin, Document& document, bool all, Way& way, std::optional<Document>& other,
                       Way& to_other) {
  for (size_t i = begin; i < links_.size(); ++i) {
    const ChainLink& link = links_[i];
    const std::vector<Rule>& rules = link.step->rules;
    const size_t column = way.values.size();
    way.values.resize(column + rules.size(), static_cast<float>(kNotMeasured));
    if (link.look == nullptr && link.decisions == nullptr) continue;
    if (way.removed && !way.measuring && link.decisions == nullptr) continue;
    if (document.is_page && !way.removed && link.look != nullptr && link.step->step->pages() == Step::Pages::refuses)
      refuse_page(*link.step, document);

    Passed& passed = way.passed.emplace_back(
        Passed{.link = i, .bytes = document.text.size(), .seen = !way.removed, .measured = way.measuring});
    std::string text, details;
    if (passed.seen && options_.keep_removed_text) text = document.text;
    times_[i].text_bytes += document.text.size();
    passed.verdict = ask(link, document, all, details);
    passed.bytes_left = document.text.size();
    if (way.measuring)
      for (size_t rule = 0; rule < rules.size(); ++rule) way.values[column + rule] = static_cast<float>(asked_[rule]);
    if (!passed.seen) continue;
    if (passed.verdict.drops.empty()) {
      if (passed.verdict.changed && link.look != nullptr && !other && (other = link.look->other())) to_other = way;
      continue;
    }
    const size_t first = passed.verdict.drops.front();
    way.removed = Removed{.step = link.step, .removal = {.rule = rule_name(rules, first)}, .text = std::move(text)};
    if (first < rules.size()) {
      const double value = asked_[first];
      way.removed->removal.value = value;
      way.removed->removal.threshold = value < rules[first].least ? rules[first].least : rules[first].most;
      way.removed->removal.details = link.look != nullptr ? link.look->details() : std::move(details);
    } else if (rule_name(rules, first) == kTimeout) {
      way.removed->removal.threshold = options_.doc_timeout_s;
    }
    // What nobody could read is of no interest to the steps behind: a page that is none, text that took too long.
    if (document.is_page || document.text.empty() || first > rules.size()) way.measuring = false;
  }
}

void DocumentChain::count(const Way& way) {
  Amount* alone = nullptr;
  uint64_t bytes = 0, drops = 0;  // of all rules that were asked
  for (const Passed& passed : way.passed) {
    const std::vector<Rule>& rules = links_[passed.link].step->rules;
    StepCounts& counts = *counts_of_[passed.link];
    if (passed.measured) {
      ++counts.measured;
      for (const size_t rule : passed.verdict.drops) {
        RuleCounts& of = counts.rules[rule_name(rules, rule)];
        of.would.add(passed.bytes);
        alone = &of.alone;
        bytes = passed.bytes;
        ++drops;
      }
    }
    if (!passed.seen) continue;
    counts.seen.add(passed.bytes);
    if (passed.verdict.drops.empty()) {
      counts.kept.add(passed.bytes_left);
      counts.changed += passed.verdict.changed;
    } else {
      counts.rules[rule_name(rules, passed.verdict.drops.front())].first.add(passed.bytes);
    }
  }
  if (drops == 1) alone->add(bytes);
}

std::optional<Removed> DocumentChain::look(Document& document, bool all) {
  Way way{.measuring = all}, second;
  std::optional<Document> other, none;
  go(0, document, all, way, other, second);
  if (way.removed && other) {
    Way unused;
    second.passed.back().bytes_left = other->text.size();
    go(second.passed.back().link + 1, *other, all, second, none, unused);
    if (!second.removed) {
      document = std::move(*other);
      way = std::move(second);
    }
  }
  count(way);
  values_ = std::move(way.values);
  return std::move(way.removed);
}

}  // namespace coppice
