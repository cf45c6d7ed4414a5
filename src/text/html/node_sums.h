// How much of what lies below a node: the figures that reader mode decides by.
#pragma once

#include <cstdint>
#include <vector>

#include "src/text/html/page_measures.h"
#include "src/text/html/page_tree.h"

namespace coppice {

struct NodeSums {
  uint32_t chars = 0, commas = 0;
  uint32_t link_tenths = 0;  // tenths of characters in links; a link into the same page counts three of ten
  uint32_t heading_chars = 0, list_chars = 0;
  uint32_t paragraphs = 0, images = 0, items = 0, inputs = 0, embeds = 0;
  uint32_t textish = 0;  // elements with text that are made to hold some
  double link_density() const { return chars == 0 ? 0 : link_tenths / (10.0 * chars); }
  void add(const NodeSums& other);
  void subtract(const NodeSums& other);
};

/// What a node adds to those above it: what lies below it, and itself.
NodeSums as_part(Tag tag, const NodeSums& below);

/// By node, of what is not `gone`; what a node is itself counts for those above it alone.
std::vector<NodeSums> node_sums(const PageTree& tree, const PageMeasures& measures, const std::vector<uint8_t>& gone);

/// +25 and -25 for good and bad words in class and id, each.
int name_weight(const PageMeasures& measures, uint32_t node);

}  // namespace coppice
