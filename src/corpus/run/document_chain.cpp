#include "src/corpus/run/document_chain.h"

#include <cmath>
#include <limits>

#include "src/corpus/deadline.h"

namespace coppice {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

const std::string& rule_name(const std::vector<Rule>& rules, size_t rule) {
  static const std::string emptied = kEmptied, timeout = kTimeout;
  return rule < rules.size() ? rules[rule].name : rule == rules.size() ? emptied : timeout;
}

}  // namespace

DocumentChain::DocumentChain(std::vector<ChainLink> links, ChainOptions options)
    : links_(std::move(links)), options_(options) {
  for (const ChainLink& link : links_) {  // a rule that removes nothing is told, too
    StepCounts& counts = counts_[link.step->name];
    for (const Rule& rule : link.step->rules) counts.rules[rule.name];
    counts_of_.push_back(&counts);
  }
}

DocumentChain::Verdict DocumentChain::ask(const ChainLink& link, Document& document, bool all, std::string& details) {
  const std::vector<Rule>& rules = link.step->rules;
  Verdict verdict;
  asked_.assign(rules.size(), kNotMeasured);
  bool too_long = false;
  set_deadline(options_.doc_timeout_s);
  try {
    verdict.changed =
        link.look != nullptr ? link.look->look(document, asked_, all) : link.decisions->look(document, asked_, details);
    too_long = past_deadline();
  } catch (const DocumentTimeout&) {
    too_long = true;
  }
  set_deadline(0);
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

std::optional<Removed> DocumentChain::look(Document& document, bool all) {
  struct Drop {
    Amount* alone;
    uint64_t bytes;
  };
  std::vector<Drop> drops;  // of every rule that was asked
  std::optional<Removed> removed;
  bool measuring = all;
  values_.clear();
  for (size_t i = 0; i < links_.size(); ++i) {
    const ChainLink& link = links_[i];
    const std::vector<Rule>& rules = link.step->rules;
    const size_t column = values_.size();
    values_.resize(column + rules.size(), static_cast<float>(kNotMeasured));
    if (link.look == nullptr && link.decisions == nullptr) continue;
    if (removed && !measuring && link.decisions == nullptr) continue;

    StepCounts& counts = *counts_of_[i];
    const uint64_t bytes = document.text.size();
    std::string text, details;
    if (!removed) {
      counts.seen.add(bytes);
      if (options_.keep_removed_text) text = document.text;
    }
    const Verdict verdict = ask(link, document, all, details);
    if (measuring) {
      ++counts.measured;
      for (size_t rule = 0; rule < rules.size(); ++rule) values_[column + rule] = static_cast<float>(asked_[rule]);
      for (const size_t rule : verdict.drops) {
        RuleCounts& of = counts.rules[rule_name(rules, rule)];
        of.would.add(bytes);
        drops.push_back({&of.alone, bytes});
      }
    }
    if (removed) continue;
    if (verdict.drops.empty()) {
      counts.kept.add(document.text.size());
      counts.changed += verdict.changed;
      continue;
    }
    const size_t first = verdict.drops.front();
    counts.rules[rule_name(rules, first)].first.add(bytes);
    removed = Removed{.step = link.step, .removal = {.rule = rule_name(rules, first)}, .text = std::move(text)};
    if (first < rules.size()) {
      const double value = asked_[first];
      removed->removal.value = value;
      removed->removal.threshold = value < rules[first].least ? rules[first].least : rules[first].most;
      removed->removal.details = link.look != nullptr ? link.look->details() : std::move(details);
    } else if (rule_name(rules, first) == kTimeout) {
      removed->removal.threshold = options_.doc_timeout_s;
    }
    // What nobody could read is of no interest to the steps behind: a page that is none, text that took too long.
    if (document.is_page || document.text.empty() || first > rules.size()) measuring = false;
  }
  if (drops.size() == 1) drops.front().alone->add(drops.front().bytes);
  return removed;
}

}  // namespace coppice
