#include "src/text/html/reader_mode.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <limits>

#include "src/text/html/article_cleaner.h"
#include "src/text/html/name_marks.h"
#include "src/text/html/node_sums.h"
#include "src/text/html/page_metadata.h"
#include "src/text/html/paragraphs.h"

namespace coppice {

namespace {

constexpr uint32_t kMinParagraphChars = 25;
constexpr uint32_t kMinArticleChars = 500;
constexpr size_t kTopCandidates = 5;
constexpr size_t kMaxHeadingBytes = 1000;
constexpr uint32_t kMaxBylineNodes = 200;
constexpr int kAncestors = 5;
constexpr int kFrameLevels = 5;  // above the article, where its lead may stand
constexpr std::ptrdiff_t kMaxLeads = 3;

/// What an attempt goes by; those that find too little are repeated with less.
struct Rules {
  bool drops_unlikely = true, weighs_names = true, cleans = true;
};

struct Attempt {
  std::vector<uint8_t> gone;    // by node
  std::vector<uint32_t> roots;  // of the article, in order
  uint32_t chars = 0;
};

class Reader {
 public:
  Reader(const PageTree& tree, const PageMeasures& measures, std::string_view title)
      : tree_(tree), measures_(measures), title_(title) {}

  Attempt attempt(const Rules& rules) {
    rules_ = rules;
    gone_ = measures_.never;
    drop_unlikely();
    sums_ = node_sums(tree_, measures_, gone_);
    paragraphs_ = find_paragraphs(tree_, gone_, sums_);
    vote();
    Attempt found;
    const uint32_t top = choose();
    found.roots = article_roots(top);
    add_leads(found.roots);
    clean_article({tree_, measures_, paragraphs_, found.roots, rules.weighs_names}, rules.cleans, gone_, sums_);
    for (const uint32_t root : found.roots)
      if (!gone_[root]) found.chars += sums_[root].chars;
    found.gone = gone_;
    return found;
  }

 private:
  uint32_t parent(uint32_t n) const { return tree_.nodes[n].parent; }
  Tag tag(uint32_t n) const { return tree_.nodes[n].tag; }
  uint32_t next(uint32_t n) const { return tree_.nodes[n].end; }
  bool is_body(uint32_t n) const { return tag(n) == Tag::body || n == 0 || tag(n) == Tag::html; }

  void drop(uint32_t n) { std::fill(gone_.begin() + n, gone_.begin() + next(n), 1); }

  bool has_near_ancestor(uint32_t n, Tag wanted) const {
    for (int level = 0; n != 0 && level < 4; ++level) {
      n = parent(n);
      if (tag(n) == wanted) return true;
    }
    return false;
  }

  bool is_byline(uint32_t n, uint32_t marks) const {
    if ((marks & kByline) == 0 && tree_.attribute(n, Attribute::itemprop).find("author") == std::string_view::npos)
      return false;
    if (next(n) - n > kMaxBylineNodes) return false;
    uint32_t chars = 0;
    for (uint32_t i = n; i < next(n); ++i) chars += measures_.texts[i].chars;
    return chars > 0 && chars < 100;
  }

  void drop_unlikely() {
    static constexpr std::string_view kRoles[] = {"menu",  "menubar",     "complementary", "navigation",
                                                  "alert", "alertdialog", "dialog"};
    bool byline_seen = false, title_seen = false;
    for (uint32_t n = 1; n < tree_.nodes.size(); ++n) {
      const Tag at = tag(n);
      if (gone_[n] || at == Tag::text || at == Tag::formula) {
        n = next(n) - 1;
        continue;
      }
      const uint32_t marks = measures_.class_marks[n] | measures_.id_marks[n];
      bool goes = false;
      if (!byline_seen && is_byline(n, marks)) goes = byline_seen = true;
      if (!goes && !title_seen && (at == Tag::h1 || at == Tag::h2) && !tree_.deadline.has_passed() &&
          title_.repeated_by(tree_.whole_text(n, kMaxHeadingBytes)))
        goes = title_seen = true;
      if (!goes && rules_.drops_unlikely) {
        goes = (marks & kUnlikely) != 0 && (marks & kMaybe) == 0 && at != Tag::body && at != Tag::html &&
               at != Tag::a && !has_near_ancestor(n, Tag::table) && !has_near_ancestor(n, Tag::code);
        if (!goes) {
          const std::string_view role = tree_.attribute(n, Attribute::role);
          goes = !role.empty() && std::ranges::find(kRoles, role) != std::end(kRoles);
        }
      }
      if (!goes) continue;
      drop(n);
      n = next(n) - 1;
    }
  }

  void vote() {
    scores_.assign(tree_.nodes.size(), std::numeric_limits<double>::quiet_NaN());
    candidates_.clear();
    for (uint32_t n = 1; n < tree_.nodes.size(); ++n) {
      if (gone_[n]) {
        n = next(n) - 1;
        continue;
      }
      const Tag at = tag(n);
      const bool wrapped = at == Tag::p && tag(parent(n)) == Tag::div && paragraphs_.is_paragraph[parent(n)];
      if ((at == Tag::p && !wrapped) || at == Tag::td || at == Tag::pre || at == Tag::section ||
          (is_heading(at) && at != Tag::h1) || (at == Tag::div && paragraphs_.is_paragraph[n]))
        cast(parent(n), sums_[n]);
      else if (at == Tag::div)
        for_each_run(tree_, gone_, sums_, paragraphs_, n,
                     [&](uint32_t, uint32_t, const NodeSums& run) { cast(n, run); });
    }
    for (const uint32_t n : candidates_) scores_[n] *= 1 - sums_[n].link_density();
  }

  /// Gives the score of a paragraph to its ancestors, the first of which is `up`.
  void cast(uint32_t up, const NodeSums& sums) {
    if (sums.chars < kMinParagraphChars) return;
    const double score = 2.0 + sums.commas + std::min<uint32_t>(sums.chars / 100, 3);
    for (int level = 0; level < kAncestors && up != 0 && tag(up) != Tag::html; ++level, up = parent(up)) {
      if (std::isnan(scores_[up])) {
        scores_[up] = start_score(up);
        candidates_.push_back(up);
      }
      scores_[up] += score / (level == 0 ? 1 : level == 1 ? 2 : level * 3);
    }
  }

  double start_score(uint32_t n) const {
    double score = rules_.weighs_names ? name_weight(measures_, n) : 0;
    switch (tag(n)) {
      case Tag::div:
        score += 5;
        break;
      case Tag::pre:
      case Tag::td:
      case Tag::blockquote:
        score += 3;
        break;
      case Tag::address:
      case Tag::ol:
      case Tag::ul:
      case Tag::dl:
      case Tag::dd:
      case Tag::dt:
      case Tag::li:
      case Tag::form:
        score -= 3;
        break;
      case Tag::h1:
      case Tag::h2:
      case Tag::h3:
      case Tag::h4:
      case Tag::h5:
      case Tag::h6:
      case Tag::th:
        score -= 5;
        break;
      default:
        break;
    }
    return score;
  }

  bool is_below(uint32_t n, uint32_t above) const { return n > above && n < next(above); }

  /// The node whose text is the article: the body when nothing was a paragraph.
  uint32_t choose() {
    std::vector<uint32_t> best;
    for (const uint32_t n : candidates_) {
      size_t place = best.size();
      while (place > 0 && scores_[n] > scores_[best[place - 1]]) --place;
      if (place < kTopCandidates) best.insert(best.begin() + static_cast<std::ptrdiff_t>(place), n);
      if (best.size() > kTopCandidates) best.pop_back();
    }
    if (best.empty()) {
      const auto body = std::ranges::find(tree_.nodes, Tag::body, &PageNode::tag);
      return body == tree_.nodes.end() ? 0 : static_cast<uint32_t>(body - tree_.nodes.begin());
    }
    uint32_t top = best[0];
    if (is_body(top)) return top;
    // An ancestor of three others that are nearly as good is better.
    std::vector<uint32_t> close;
    for (size_t i = 1; i < best.size(); ++i)
      if (scores_[best[i]] >= 0.75 * scores_[top]) close.push_back(best[i]);
    if (close.size() >= 3)
      for (uint32_t up = parent(top); !is_body(up); up = parent(up))
        if (std::ranges::count_if(close, [&](uint32_t n) { return is_below(n, up); }) >= 3) {
          top = up;
          break;
        }
    if (std::isnan(scores_[top])) scores_[top] = start_score(top);
    // Climb while the score does not fall below a third; the first that is better is taken.
    double last = scores_[top];
    const double least = last / 3;
    for (uint32_t up = parent(top); !is_body(up); up = parent(up)) {
      if (std::isnan(scores_[up])) continue;
      if (scores_[up] < least) break;
      if (scores_[up] > last) {
        top = up;
        break;
      }
      last = scores_[up];
    }
    // An only child stands for its parent, whose siblings may belong to it.
    while (!is_body(parent(top)) && is_only_child(top)) top = parent(top);
    if (std::isnan(scores_[top])) scores_[top] = start_score(top);
    return top;
  }

  bool is_only_child(uint32_t n) const {
    for (const uint32_t sibling : children(tree_, parent(n))) {
      if (sibling == n || gone_[sibling]) continue;
      if (tag(sibling) != Tag::text || measures_.texts[sibling].chars > 0) return false;
    }
    return true;
  }

  std::vector<uint32_t> article_roots(uint32_t top) {
    if (is_body(top)) return {top};
    const uint32_t above = parent(top);
    const double least = std::max(10.0, scores_[top] * 0.2);
    const std::string_view top_class = tree_.attribute(top, Attribute::class_name);
    std::vector<uint32_t> roots;
    const auto is_like_a_paragraph = [&](uint32_t begin, uint32_t end, const NodeSums& sums) {
      const double density = sums.link_density();
      if (sums.chars > 80) return density < 0.25;
      return sums.chars > 0 && density == 0 && has_sentence_end(begin, end);
    };
    for (const uint32_t sibling : children(tree_, above)) {
      if (gone_[sibling]) continue;
      bool belongs = sibling == top;
      if (!belongs && !std::isnan(scores_[sibling])) {
        const bool same_class = !top_class.empty() && tree_.attribute(sibling, Attribute::class_name) == top_class;
        belongs = scores_[sibling] + (same_class ? scores_[top] * 0.2 : 0) >= least;
      }
      if (!belongs && paragraphs_.is_paragraph[sibling])
        belongs = is_like_a_paragraph(sibling, next(sibling), sums_[sibling]);
      if (belongs) roots.push_back(sibling);
    }
    if (tag(above) == Tag::div)
      for_each_run(tree_, gone_, sums_, paragraphs_, above, [&](uint32_t begin, uint32_t end, const NodeSums& run) {
        if (!is_like_a_paragraph(begin, end, run)) return;
        for (uint32_t n = begin; n < end; n = next(n))
          if (!gone_[n]) roots.push_back(n);
      });
    std::ranges::sort(roots);
    roots.erase(std::unique(roots.begin(), roots.end()), roots.end());
    return roots;
  }

  /// Summaries that stand in front of the article, in the element that frames both: the last ones.
  void add_leads(std::vector<uint32_t>& roots) const {
    const uint32_t article = roots[0];
    if (is_body(article)) return;
    uint32_t frame = article;
    for (int up = 0; up < kFrameLevels && !is_body(parent(frame)) && tag(frame) != Tag::article &&
                     tag(frame) != Tag::main && frame != 0;
         ++up)
      frame = parent(frame);
    std::vector<uint32_t> leads;
    for (uint32_t n = frame + 1; n < article; ++n) {
      if (gone_[n]) {
        n = next(n) - 1;
        continue;
      }
      const uint32_t marks = measures_.class_marks[n] | measures_.id_marks[n];
      const NodeSums& sums = sums_[n];
      if ((marks & kLead) == 0 || next(n) > article || sums.chars < kMinParagraphChars ||
          sums.chars > sums_[article].chars || sums.link_density() > 0.2)
        continue;
      leads.push_back(n);
      n = next(n) - 1;
    }
    if (std::ssize(leads) > kMaxLeads) leads.erase(leads.begin(), leads.end() - kMaxLeads);
    roots.insert(roots.begin(), leads.begin(), leads.end());
  }

  /// A full stop before a blank or at the end.
  bool has_sentence_end(uint32_t begin, uint32_t end) const {
    std::string text;
    for (uint32_t n = begin; n < end; ++n)
      if (!gone_[n]) text += tree_.text_of(n);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
    return text.ends_with('.') || text.find(". ") != std::string::npos;
  }

  const PageTree& tree_;
  const PageMeasures& measures_;
  TitleWords title_;
  Rules rules_;
  std::vector<uint8_t> gone_;
  Paragraphs paragraphs_;
  std::vector<NodeSums> sums_;
  std::vector<double> scores_;  // by node; NaN: no candidate
  std::vector<uint32_t> candidates_;
};

}  // namespace

std::vector<uint8_t> reader_mode(const PageTree& tree, const PageMeasures& measures, std::string_view title) {
  static constexpr Rules kRules[] = {
      {true, true, true}, {false, true, true}, {false, false, true}, {false, false, false}};
  Reader reader(tree, measures, title);
  Attempt best;
  for (const Rules& rules : kRules) {
    Attempt attempt = reader.attempt(rules);
    if (attempt.chars > best.chars) best = std::move(attempt);
    if (best.chars >= kMinArticleChars || tree.deadline.has_passed()) break;
  }
  std::vector<uint8_t> selected(tree.nodes.size(), 0);
  for (const uint32_t root : best.roots)
    for (uint32_t n = root; n < tree.nodes[root].end; ++n) {
      if (best.gone[n]) continue;
      selected[n] = tree.nodes[n].tag == Tag::text || tree.nodes[n].tag == Tag::formula;
    }
  drop_empty_headings(tree, selected);
  return selected;
}

}  // namespace coppice
