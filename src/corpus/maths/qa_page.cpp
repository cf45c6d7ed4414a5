#include "src/corpus/maths/qa_page.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "src/text/html/formulas.h"
#include "src/text/html/page_metadata.h"
#include "src/text/html/tags.h"
#include "src/text/html/text_writer.h"

namespace coppice {
namespace {

using Found = std::vector<SelectedNode>;

/// What the selectors of one site have found.
struct SiteFinds {
  const Found &marker, &title, &question, &question_votes, &answers, &answer_text, &answer_votes, &accepted;
};
constexpr size_t kSelectors = 8;

void add_selectors(const QaSite& site, std::vector<const Selector*>& selectors) {
  selectors.insert(selectors.end(), {&site.marker, &site.title, &site.question, &site.question_votes, &site.answers,
                                     &site.answer_text, &site.answer_votes, &site.accepted});
}

SiteFinds finds_of(const SelectorWatch& watch, size_t site) {
  const Found* const first = watch.found().data() + site * kSelectors;
  return {first[0], first[1], first[2], first[3], first[4], first[5], first[6], first[7]};
}

class Reader {
 public:
  Reader(const PageTree& tree, const QaSite& site, const SiteFinds& finds)
      : tree_(tree), site_(site), finds_(finds), visible_(tree.nodes.size(), 0) {}

  void read(QaPage& page) {
    if (finds_.question.empty()) return;
    const uint32_t question = finds_.question.front().node;
    page.question = text_below(question);
    page.is_found = !page.question.empty();
    if (!finds_.title.empty()) page.title = text_of(finds_.title.front(), site_.title);
    if (!finds_.question_votes.empty()) set_votes(finds_.question_votes.front(), site_.question_votes, page);
    uint32_t behind = 0;  // the answer before; answers within answers are parts of them
    for (const SelectedNode& answer : finds_.answers) {
      const bool holds_question = answer.node <= question && question < tree_.nodes[answer.node].end;
      const bool is_of_question = question < answer.node && answer.node < tree_.nodes[question].end;
      if (answer.node < behind || holds_question || is_of_question) continue;
      behind = tree_.nodes[answer.node].end;
      add_answer(answer.node, page);
    }
    std::ranges::stable_sort(page.answers, [](const QaAnswer& a, const QaAnswer& b) {
      return a.is_accepted != b.is_accepted ? a.is_accepted : a.votes > b.votes;
    });
    if (site_.best > 0 && page.answers.size() > static_cast<size_t>(site_.best))
      page.answers.resize(static_cast<size_t>(site_.best));
  }

 private:
  /// The first find at a node or below it; they are in the order of the page.
  const SelectedNode* first_in(const Found& found, uint32_t node) const {
    const auto at = std::ranges::lower_bound(found, node, {}, &SelectedNode::node);
    return at == found.end() || at->node >= tree_.nodes[node].end ? nullptr : &*at;
  }

  /// Text and formulas below a node without what is hidden in it.
  std::string text_below(uint32_t root) {
    for (uint32_t n = root + 1; n < tree_.nodes[root].end; ++n) {
      const PageNode& node = tree_.nodes[n];
      visible_[n] = node.tag == Tag::text || node.tag == Tag::formula;
      if (visible_[n] || node.is_hidden || traits(node.tag).is_void) n = node.end - 1;
    }
    return composed(write_text(tree_, visible_, " | ", root));
  }

  std::string text_of(const SelectedNode& found, const Selector& selector) {
    return selector.attribute.empty() ? text_below(found.node) : composed(found.value);
  }

  template <class Voted>
  void set_votes(const SelectedNode& found, const Selector& selector, Voted& voted) {
    const auto votes = read_votes(text_of(found, selector));
    voted.has_votes = votes.has_value();
    voted.votes = votes.value_or(0);
  }

  void add_answer(uint32_t node, QaPage& page) {
    QaAnswer answer;
    if (const SelectedNode* votes = first_in(finds_.answer_votes, node)) set_votes(*votes, site_.answer_votes, answer);
    if (answer.has_votes && answer.votes < site_.min_votes.value_or(answer.votes)) return;
    answer.is_accepted = first_in(finds_.accepted, node) != nullptr;
    const SelectedNode* const text = site_.answer_text.parts.empty() ? nullptr : first_in(finds_.answer_text, node);
    if (text == nullptr && !site_.answer_text.parts.empty()) return;
    answer.text = text_below(text == nullptr ? node : text->node);
    if (!answer.text.empty()) page.answers.push_back(std::move(answer));
  }

  const PageTree& tree_;
  const QaSite& site_;
  const SiteFinds& finds_;
  std::vector<uint8_t> visible_;  // by node, of what was written last
};

}  // namespace

std::optional<double> read_votes(std::string_view text) {
  std::string number;
  for (const char c : text)
    if (c != ',' && c != ' ' && c != '\n' && c != '\t' && c != '+') number += c;
  double factor = 1;
  if (!number.empty() && (number.back() == 'k' || number.back() == 'K')) {
    number.pop_back();
    factor = 1000;
  }
  double value = 0;
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), value, std::chars_format::fixed);
  if (error != std::errc() || end != number.data() + number.size() || !(std::abs(value) < 1e12)) return std::nullopt;
  return value * factor;
}

QaPage read_qa_page(std::string_view html, std::string_view url, const std::vector<QaSite>& sites,
                    const PageLimits& limits) {
  QaPage page;
  std::vector<const QaSite*> candidates;
  std::vector<const Selector*> selectors;
  for (const QaSite& site : sites) {
    if (!may_be_of(site, url)) continue;
    candidates.push_back(&site);
    add_selectors(site, selectors);
  }
  if (candidates.empty()) return page;
  SelectorWatch watch(selectors);
  PageTree tree;
  read_page(html, limits, tree, &watch);
  for (size_t i = 0; i < candidates.size() && page.site == nullptr; ++i) {
    if (!candidates[i]->marker.parts.empty() && finds_of(watch, i).marker.empty()) continue;
    page.site = candidates[i];
    page.refusal = tree.refusal;
    if (page.refusal != Refusal::none) break;
    const PageMetadata metadata = page_metadata(tree);
    page.title = composed(metadata.title);
    page.date = metadata.date;
    if (metadata.opts_out) page.refusal = Refusal::opt_out;
    if (page.refusal != Refusal::none) break;
    keep_formulas(tree);
    const SiteFinds finds = finds_of(watch, i);
    Reader(tree, *page.site, finds).read(page);
  }
  return page;
}

std::string qa_text(const QaPage& page) {
  std::string text = page.title;
  if (!text.empty()) text += "\n\n";
  text += page.question;
  for (const QaAnswer& answer : page.answers) text += "\n\nAnswer: " + answer.text;
  return text;
}

}  // namespace coppice
