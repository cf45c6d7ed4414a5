#include "src/text/html/article_cleaner.h"

#include <algorithm>

#include "src/text/html/name_marks.h"

namespace coppice {

namespace {

constexpr uint32_t kShareChars = 500;  // buttons have less text
constexpr uint32_t kNoiseShare = 4;    // what is called noise is less than a quarter of the article
constexpr uint32_t kProseChars = 120;  // a <div> that is one paragraph of so much is not judged by its shape
constexpr uint32_t kManyCommas = 10;   // and neither is what has so many commas
constexpr uint32_t kMinParagraphChars = 25;
constexpr double kListDensity = 0.7;  // links beyond it make a list navigation

class Cleaner {
 public:
  Cleaner(const Article& article, std::vector<uint8_t>& gone, std::vector<NodeSums>& sums)
      : article_(article),
        tree_(article.tree),
        gone_(gone),
        sums_(sums),
        lost_(tree_.nodes.size()),
        has_lost_(tree_.nodes.size(), 0) {
    find_data_tables();
  }

  /// Takes away the elements for which goes(node) holds, last first, so that an element is judged by what is left.
  template <class Goes>
  void remove_if(const Goes& goes) {
    for (size_t i = article_.roots.size(); i-- > 0;) {
      const uint32_t root = article_.roots[i];
      for (uint32_t n = tree_.nodes[root].end; n-- > root;) {
        const uint32_t parent = tree_.nodes[n].parent;
        if (has_lost_[n]) {
          sums_[n].subtract(lost_[n]);
          if (n != root) lose(parent, lost_[n]);
          lost_[n] = {};
          has_lost_[n] = 0;
        }
        if (n == root || gone_[n] || !goes(n)) continue;
        std::fill(gone_.begin() + n, gone_.begin() + tree_.nodes[n].end, 1);
        lose(parent, as_part(tree_.nodes[n].tag, sums_[n]));
      }
    }
  }

  void remove_marked(uint32_t mark, uint32_t max_chars) {
    remove_if([&](uint32_t n) { return (marks(n) & mark) != 0 && sums_[n].chars < max_chars; });
  }

  void remove_noise() {
    uint32_t chars = 0;
    for (const uint32_t root : article_.roots) chars += sums_[root].chars;
    remove_marked(kNoise, chars / kNoiseShare);
  }

  int weight(uint32_t n) const { return article_.weighs_names ? name_weight(article_.measures, n) : 0; }

  /// Readability's conditional cleaning, for one element.
  bool is_fishy(uint32_t n) const {
    const Tag tag = tree_.nodes[n].tag;
    const NodeSums& sums = sums_[n];
    if (in_data_table_[n] || tables_before_[tree_.nodes[n].end] > tables_before_[n + 1]) return false;
    if (is_near(n, Tag::code)) return false;
    const int names = weight(n);
    if (names < 0) return true;
    if (sums.commas >= kManyCommas) return false;
    if (article_.paragraphs.is_paragraph[n] && sums.chars > kProseChars) return false;
    const bool is_list = tag == Tag::ul || tag == Tag::ol || sums.list_chars > 0.9 * sums.chars;
    const bool in_figure = is_near(n, Tag::figure);
    const bool is_headings = sums.heading_chars >= 0.9 * sums.chars && sums.chars > 0;
    const double density = sums.link_density();
    if (!in_figure && sums.images > 1 && sums.paragraphs < 0.5 * sums.images) return true;
    if (!is_list && sums.items > 100 + sums.paragraphs) return true;
    if (sums.inputs > sums.paragraphs / 3) return true;
    if (!is_list && !in_figure && !is_headings && sums.chars < kMinParagraphChars &&
        (sums.images == 0 || sums.images > 2) && density > 0)
      return true;
    if (is_list && density > kListDensity) return true;
    if (!is_list && names < 25 && density > 0.2) return true;
    if (names >= 25 && density > 0.5) return true;
    if ((sums.embeds == 1 && sums.chars < 75) || sums.embeds > 1) return true;
    return sums.images == 0 && sums.textish == 0;
  }

 private:
  uint32_t marks(uint32_t n) const { return article_.measures.class_marks[n] | article_.measures.id_marks[n]; }

  void lose(uint32_t n, const NodeSums& part) {
    lost_[n].add(part);
    has_lost_[n] = 1;
  }

  bool is_near(uint32_t n, Tag wanted) const {
    for (int level = 0; n != 0 && level < 4; ++level) {
      n = tree_.nodes[n].parent;
      if (tree_.nodes[n].tag == wanted) return true;
    }
    return false;
  }

  void find_data_tables() {
    const size_t count = tree_.nodes.size();
    in_data_table_.assign(count, 0);
    tables_before_.assign(count + 1, 0);
    for (uint32_t n = 1; n < count; ++n) {
      const bool is_one = tree_.nodes[n].tag == Tag::table && !gone_[n] && is_data_table(n);
      in_data_table_[n] = is_one || in_data_table_[tree_.nodes[n].parent];
      tables_before_[n + 1] = tables_before_[n] + is_one;
    }
  }

  /// Told from a table that only lays out a page, as browsers do for screen readers.
  bool is_data_table(uint32_t table) const {
    if (tree_.attribute(table, Attribute::role) == "presentation") return false;
    if (tree_.attribute(table, Attribute::datatable) == "0") return false;
    if (!tree_.attribute(table, Attribute::summary).empty()) return true;
    uint32_t rows = 0, columns = 0, in_row = 0;
    for (uint32_t n = table + 1; n < tree_.nodes[table].end; ++n) {
      switch (tree_.nodes[n].tag) {
        case Tag::caption:
        case Tag::col:
        case Tag::colgroup:
        case Tag::tfoot:
        case Tag::thead:
        case Tag::th:
          return true;
        case Tag::table:
          return false;
        case Tag::tr:
          ++rows;
          in_row = 0;
          break;
        case Tag::td:
          columns = std::max(columns, ++in_row);
          break;
        default:
          break;
      }
    }
    if (rows <= 1 || columns <= 1) return false;
    return rows >= 10 || columns > 4 || rows * columns > 10;
  }

  const Article& article_;
  const PageTree& tree_;
  std::vector<uint8_t>& gone_;
  std::vector<NodeSums>& sums_;
  std::vector<NodeSums> lost_;  // by node: not yet taken from its sums
  std::vector<uint8_t> has_lost_, in_data_table_;
  std::vector<uint32_t> tables_before_;  // data tables before a node
};

}  // namespace

void clean_article(const Article& article, bool by_shape, std::vector<uint8_t>& gone, std::vector<NodeSums>& sums) {
  Cleaner cleaner(article, gone, sums);
  const auto tag = [&](uint32_t n) { return article.tree.nodes[n].tag; };
  const auto remove_fishy = [&](Tag wanted) {
    if (by_shape) cleaner.remove_if([&](uint32_t n) { return tag(n) == wanted && cleaner.is_fishy(n); });
  };
  remove_fishy(Tag::form);
  remove_fishy(Tag::fieldset);
  cleaner.remove_if([&](uint32_t n) {
    return tag(n) == Tag::footer || tag(n) == Tag::aside || tag(n) == Tag::nav || tag(n) == Tag::figcaption;
  });
  cleaner.remove_marked(kShare, kShareChars);
  cleaner.remove_noise();
  cleaner.remove_if([&](uint32_t n) { return (tag(n) == Tag::h1 || tag(n) == Tag::h2) && cleaner.weight(n) < 0; });
  remove_fishy(Tag::table);
  remove_fishy(Tag::ul);
  remove_fishy(Tag::div);
}

void drop_empty_headings(const PageTree& tree, std::vector<uint8_t>& selected) {
  constexpr int kLevels = 4;  // from the characters up to the heading
  int rank_behind = 1;        // of the heading that comes next; the end of the page is like an <h1>
  bool text_behind = false;   // between here and that heading
  for (uint32_t n = static_cast<uint32_t>(tree.nodes.size()); n-- > 1;) {
    if (!selected[n]) continue;
    uint32_t up = n;
    for (int level = 0; level < kLevels && up != 0 && !is_heading(tree.nodes[up].tag); ++level)
      up = tree.nodes[up].parent;
    if (!is_heading(tree.nodes[up].tag)) {
      text_behind = text_behind || tree.text_of(n).find_first_not_of(" \t\r\n\f") != std::string_view::npos;
      continue;
    }
    const int rank = static_cast<int>(tree.nodes[up].tag) - static_cast<int>(Tag::h1) + 1;
    if (!text_behind && rank_behind <= rank) {
      std::fill(selected.begin() + up, selected.begin() + tree.nodes[up].end, 0);
    } else {
      rank_behind = rank;
      text_behind = false;
    }
    n = up;
  }
}

}  // namespace coppice
