#include "src/text/html/node_sums.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <string>
#include <unordered_set>

#include "src/text/html/name_marks.h"

namespace coppice {

namespace {

constexpr uint32_t kShareChars = 500;

bool is_textish(Tag tag) {
  switch (tag) {
    case Tag::span:
    case Tag::li:
    case Tag::td:
    case Tag::blockquote:
    case Tag::dl:
    case Tag::div:
    case Tag::ol:
    case Tag::p:
    case Tag::pre:
    case Tag::table:
    case Tag::ul:
      return true;
    default:
      return false;
  }
}

/// What a node adds to those above it: what lies below it, and itself.
NodeSums as_part(Tag tag, const NodeSums& below) {
  NodeSums part = below;
  if (is_heading(tag)) part.heading_chars += below.chars;
  if (tag == Tag::ul || tag == Tag::ol) part.list_chars += below.chars;
  part.paragraphs += tag == Tag::p;
  part.images += tag == Tag::img;
  part.items += tag == Tag::li;
  part.inputs += tag == Tag::input;
  part.embeds += tag == Tag::object || tag == Tag::embed || tag == Tag::iframe;
  part.textish += is_textish(tag) && below.chars > 0;
  return part;
}

}  // namespace

void NodeSums::add(const NodeSums& other) {
  chars += other.chars;
  commas += other.commas;
  link_tenths += other.link_tenths;
  heading_chars += other.heading_chars;
  list_chars += other.list_chars;
  paragraphs += other.paragraphs;
  images += other.images;
  items += other.items;
  inputs += other.inputs;
  embeds += other.embeds;
  textish += other.textish;
}

void NodeSums::subtract(const NodeSums& other) {
  const auto less = [](uint32_t& value, uint32_t by) { value -= std::min(value, by); };
  less(chars, other.chars);
  less(commas, other.commas);
  less(link_tenths, other.link_tenths);
  less(heading_chars, other.heading_chars);
  less(list_chars, other.list_chars);
  less(paragraphs, other.paragraphs);
  less(images, other.images);
  less(items, other.items);
  less(inputs, other.inputs);
  less(embeds, other.embeds);
  less(textish, other.textish);
}

std::vector<NodeSums> node_sums(const PageTree& tree, const PageMeasures& measures, const std::vector<uint8_t>& gone) {
  std::vector<NodeSums> sums(tree.nodes.size());
  // Weight of a link's characters, handed down from the links.
  std::vector<uint8_t> tenths(tree.nodes.size(), 0);
  for (uint32_t n = 1; n < tree.nodes.size(); ++n) {
    const PageNode& node = tree.nodes[n];
    tenths[n] = node.tag == Tag::a ? (node.is_fragment ? 3 : 10) : tenths[node.parent];
  }
  for (uint32_t n = static_cast<uint32_t>(tree.nodes.size()); n-- > 1;) {
    const PageNode& node = tree.nodes[n];
    // Controls and media are gone as text, and still tell what their surroundings are.
    if (gone[n] && !traits(node.tag).is_void && node.tag != Tag::img) continue;
    if (gone[n] && gone[node.parent]) continue;
    if (!gone[n] && (node.tag == Tag::text || node.tag == Tag::formula)) {
      sums[n].chars = measures.texts[n].chars;
      sums[n].commas = measures.texts[n].commas;
      sums[n].link_tenths = sums[n].chars * tenths[n];
    }
    sums[node.parent].add(as_part(node.tag, sums[n]));
  }
  return sums;
}

int name_weight(const PageMeasures& measures, uint32_t node) {
  const auto weight = [](uint32_t marks) {
    return ((marks & kPositive) != 0 ? 25 : 0) - ((marks & kNegative) != 0 ? 25 : 0);
  };
  return weight(measures.class_marks[node]) + weight(measures.id_marks[node]);
}

bool repeats_title(std::string_view heading, std::string_view title) {
  const auto words_of = [](std::string_view text) {
    std::vector<std::string> words;
    std::string word;
    for (const char c : text) {
      const auto letter = static_cast<unsigned char>(c);
      if (std::isalnum(letter) || letter >= 0x80) {
        word += static_cast<char>(std::tolower(letter));
      } else if (!word.empty()) {
        words.push_back(std::move(word));
        word.clear();
      }
    }
    if (!word.empty()) words.push_back(std::move(word));
    return words;
  };
  if (heading.size() > 1000 || title.empty()) return false;
  const std::vector<std::string> in_title = words_of(title);
  const std::unordered_set<std::string> known(in_title.begin(), in_title.end());
  size_t all = 0, missing = 0;
  for (const std::string& word : words_of(heading)) {
    all += word.size() + 1;
    if (!known.contains(word)) missing += word.size() + 1;
  }
  return all > 0 && missing * 4 < all;
}

namespace {

class Cleaner {
 public:
  Cleaner(const PageTree& tree, const PageMeasures& measures, const std::vector<uint32_t>& roots, bool weighs_names,
          std::vector<uint8_t>& gone, std::vector<NodeSums>& sums)
      : tree_(tree), measures_(measures), roots_(roots), weighs_names_(weighs_names), gone_(gone), sums_(sums) {
    is_data_table_.assign(tree.nodes.size(), 0);
    for (const uint32_t root : roots)
      for (uint32_t n = root; n < tree.nodes[root].end; ++n)
        if (tree.nodes[n].tag == Tag::table && !gone[n]) is_data_table_[n] = is_data_table(n);
  }

  /// Calls goes(node) for elements of the given tags, last first, and takes away those for which it holds.
  template <class Goes>
  void remove_if(std::initializer_list<Tag> tags, const Goes& goes) {
    for (size_t i = roots_.size(); i-- > 0;) {
      const uint32_t root = roots_[i];
      for (uint32_t n = tree_.nodes[root].end; n-- > root;) {
        if (gone_[n] || std::find(tags.begin(), tags.end(), tree_.nodes[n].tag) == tags.end()) continue;
        if (n != root && goes(n)) remove(n);
      }
    }
  }
  void remove_all(std::initializer_list<Tag> tags) {
    remove_if(tags, [](uint32_t) { return true; });
  }

  void remove_shares() {
    for (const uint32_t root : roots_)
      for (uint32_t n = root + 1; n < tree_.nodes[root].end; ++n)
        if (!gone_[n] && ((measures_.class_marks[n] | measures_.id_marks[n]) & kShare) != 0 &&
            sums_[n].chars < kShareChars)
          remove(n);
  }

  bool has_negative_name(uint32_t n) const { return weight(n) < 0; }

  /// Readability's conditional cleaning, for one element.
  bool is_fishy(uint32_t n) const {
    const Tag tag = tree_.nodes[n].tag;
    const NodeSums& sums = sums_[n];
    const bool is_list = tag == Tag::ul || tag == Tag::ol || sums.list_chars > 0.9 * sums.chars;
    if (tag == Tag::table && is_data_table_[n]) return false;
    if (is_in(
            n, [&](uint32_t up) { return is_data_table_[up] != 0; }, 512))
      return false;
    if (is_in(
            n, [&](uint32_t up) { return tree_.nodes[up].tag == Tag::code; }, 4))
      return false;
    for (uint32_t i = n + 1; i < tree_.nodes[n].end; ++i)
      if (is_data_table_[i] && !gone_[i]) return false;
    const int names = weight(n);
    if (names < 0) return true;
    if (sums.commas >= 10) return false;
    const double density = sums.link_density();
    const bool in_figure = is_in(
        n, [&](uint32_t up) { return tree_.nodes[up].tag == Tag::figure; }, 4);
    const bool mostly_headings = sums.heading_chars >= 0.9 * sums.chars && sums.chars > 0;
    if (!in_figure && sums.images > 1 && sums.paragraphs < 0.5 * sums.images) return true;
    if (!is_list && sums.items > 100 + sums.paragraphs) return true;
    if (sums.inputs > sums.paragraphs / 3) return true;
    if (!is_list && !in_figure && !mostly_headings && sums.chars < 25 && (sums.images == 0 || sums.images > 2) &&
        density > 0)
      return true;
    if (!is_list && names < 25 && density > 0.2) return true;
    if (names >= 25 && density > 0.5) return true;
    if ((sums.embeds == 1 && sums.chars < 75) || sums.embeds > 1) return true;
    return sums.images == 0 && sums.textish == 0;
  }

 private:
  int weight(uint32_t n) const { return weighs_names_ ? name_weight(measures_, n) : 0; }

  void remove(uint32_t n) {
    std::fill(gone_.begin() + n, gone_.begin() + tree_.nodes[n].end, 1);
    const NodeSums part = as_part(tree_.nodes[n].tag, sums_[n]);
    for (uint32_t up = n; up != 0;) {
      up = tree_.nodes[up].parent;
      sums_[up].subtract(part);
    }
  }

  template <class Holds>
  bool is_in(uint32_t n, const Holds& holds, int levels) const {
    for (; n != 0 && levels > 0; --levels) {
      n = tree_.nodes[n].parent;
      if (holds(n)) return true;
    }
    return false;
  }

  /// Told from a table that only lays out a page, as browsers do for screen readers.
  bool is_data_table(uint32_t table) const {
    if (tree_.attribute(table, Attribute::role) == "presentation") return false;
    if (tree_.attribute(table, Attribute::datatable) == "0") return false;
    if (!tree_.attribute(table, Attribute::summary).empty()) return true;
    uint32_t rows = 0, columns = 0, in_row = 0;
    bool nested = false;
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
          nested = true;
          break;
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
    if (nested || rows <= 1 || columns <= 1) return false;
    return rows >= 10 || columns > 4 || rows * columns > 10;
  }

  const PageTree& tree_;
  const PageMeasures& measures_;
  const std::vector<uint32_t>& roots_;
  bool weighs_names_;
  std::vector<uint8_t>& gone_;
  std::vector<NodeSums>& sums_;
  std::vector<uint8_t> is_data_table_;
};

}  // namespace

void clean_article(const PageTree& tree, const PageMeasures& measures, const std::vector<uint32_t>& roots,
                   bool weighs_names, bool cleans, std::vector<uint8_t>& gone, std::vector<NodeSums>& sums) {
  Cleaner cleaner(tree, measures, roots, weighs_names, gone, sums);
  const auto is_fishy = [&](uint32_t n) { return cleaner.is_fishy(n); };
  if (cleans) cleaner.remove_if({Tag::form}, is_fishy);
  if (cleans) cleaner.remove_if({Tag::fieldset}, is_fishy);
  cleaner.remove_all({Tag::footer, Tag::aside});
  cleaner.remove_shares();
  cleaner.remove_if({Tag::h1, Tag::h2}, [&](uint32_t n) { return cleaner.has_negative_name(n); });
  if (!cleans) return;
  cleaner.remove_if({Tag::table}, is_fishy);
  cleaner.remove_if({Tag::ul}, is_fishy);
  cleaner.remove_if({Tag::div}, is_fishy);
}

}  // namespace coppice
