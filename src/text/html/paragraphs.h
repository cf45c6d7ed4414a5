// Paragraphs that the markup does not call so: pages made of <div>s alone have no <p>.
#pragma once

#include <cstdint>
#include <vector>

#include "src/text/html/node_sums.h"
#include "src/text/html/page_tree.h"

namespace coppice {

/// By node.
struct Paragraphs {
  std::vector<uint8_t> is_phrasing;   // part of a sentence, with all that lies below it
  std::vector<uint8_t> is_paragraph;  // a <p>, or a <div> with nothing but phrasing or one <p>
};

/// Adds to `sums` the paragraphs that it finds.
Paragraphs find_paragraphs(const PageTree& tree, const std::vector<uint8_t>& gone, std::vector<NodeSums>& sums);

/// Calls visit(first node, behind the last, their sums) for every run of phrasing among the children of a <div>.
template <class Visit>
void for_each_run(const PageTree& tree, const std::vector<uint8_t>& gone, const std::vector<NodeSums>& sums,
                  const Paragraphs& paragraphs, uint32_t div, const Visit& visit) {
  uint32_t begin = 0, end = 0;
  NodeSums run;
  const auto close = [&] {
    if (begin != 0) visit(begin, end, run);
    begin = 0;
    run = {};
  };
  for (const uint32_t child : children(tree, div)) {
    if (gone[child]) continue;
    if (!paragraphs.is_phrasing[child]) {
      close();
      continue;
    }
    if (begin == 0) begin = child;
    end = tree.nodes[child].end;
    run.add(sums[child]);
  }
  close();
}

}  // namespace coppice
