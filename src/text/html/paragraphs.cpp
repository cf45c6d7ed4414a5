#include "src/text/html/paragraphs.h"

namespace coppice {

namespace {

constexpr double kMaxLinkDensity = 0.25;  // of a <div> that is a paragraph

bool is_phrasing(const PageTree& tree, const std::vector<uint8_t>& gone, const Paragraphs& found, uint32_t n) {
  const Tag tag = tree.nodes[n].tag;
  if (tag != Tag::a && tag != Tag::del && tag != Tag::ins) return traits(tag).is_phrasing;
  for (const uint32_t child : children(tree, n))
    if (!gone[child] && !found.is_phrasing[child]) return false;
  return true;
}

/// One run of phrasing or one <p>, and nothing else.
bool is_one_paragraph(const PageTree& tree, const std::vector<uint8_t>& gone, const std::vector<NodeSums>& sums,
                      const Paragraphs& found, uint32_t div) {
  size_t parts = 0;
  bool in_run = false;
  for (const uint32_t child : children(tree, div)) {
    if (gone[child]) continue;
    if (found.is_phrasing[child]) {
      const bool shows = sums[child].chars > 0 || sums[child].images > 0 || tree.nodes[child].tag == Tag::img;
      parts += shows && !in_run;
      in_run |= shows;
    } else if (tree.nodes[child].tag == Tag::p) {
      ++parts;
      in_run = false;
    } else {
      return false;
    }
  }
  return parts <= 1 && sums[div].link_density() < kMaxLinkDensity;
}

}  // namespace

Paragraphs find_paragraphs(const PageTree& tree, const std::vector<uint8_t>& gone, std::vector<NodeSums>& sums) {
  const size_t count = tree.nodes.size();
  Paragraphs found{std::vector<uint8_t>(count, 0), std::vector<uint8_t>(count, 0)};
  std::vector<uint32_t> more(count, 0);  // paragraphs found below a node
  for (uint32_t n = static_cast<uint32_t>(count); n-- > 1;) {
    const PageNode& node = tree.nodes[n];
    found.is_phrasing[n] = gone[n] ? traits(node.tag).is_phrasing : is_phrasing(tree, gone, found, n);
    if (gone[n] || node.tag == Tag::text || node.tag == Tag::formula) continue;
    uint32_t here = 0;
    if (node.tag == Tag::p) {
      found.is_paragraph[n] = 1;
    } else if (node.tag == Tag::div && is_one_paragraph(tree, gone, sums, found, n)) {
      found.is_paragraph[n] = 1;
      more[node.parent] += sums[n].paragraphs == 0 && more[n] == 0;
    } else if (node.tag == Tag::div) {
      for_each_run(tree, gone, sums, found, n, [&](uint32_t, uint32_t, const NodeSums& run) { here += run.chars > 0; });
    }
    more[n] += here;
    sums[n].paragraphs += more[n];
    sums[n].textish += more[n];
    more[node.parent] += more[n];
  }
  return found;
}

}  // namespace coppice
