// The second half of reader mode: what lies inside the article and is none of it.
#pragma once

#include <cstdint>
#include <vector>

#include "src/text/html/node_sums.h"
#include "src/text/html/page_measures.h"
#include "src/text/html/page_tree.h"
#include "src/text/html/paragraphs.h"

namespace coppice {

struct Article {
  const PageTree& tree;
  const PageMeasures& measures;
  const Paragraphs& paragraphs;
  const std::vector<uint32_t>& roots;  // in order, none below another
  bool weighs_names;
};

/// Marks as gone what is no text of the article: captions, navigation, buttons, what names call noise, and, with
/// `by_shape`, forms, tables, lists and <div>s whose shape is that of navigation. `sums` follows.
void clean_article(const Article& article, bool by_shape, std::vector<uint8_t>& gone, std::vector<NodeSums>& sums);

/// Takes headings out of a selection under which nothing is left: of related pages, of comments, of what was cleaned.
void drop_empty_headings(const PageTree& tree, std::vector<uint8_t>& selected);

}  // namespace coppice
