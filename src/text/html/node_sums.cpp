#include "src/text/html/node_sums.h"

#include <algorithm>

#include "src/text/html/name_marks.h"

namespace coppice {

namespace {

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

}  // namespace

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

}  // namespace coppice
