// What both readers know of a page's nodes: how much text each run of characters is, and what the names say.
#pragma once

#include <cstdint>
#include <vector>

#include "src/text/html/page_tree.h"

namespace coppice {

/// Of one text or formula. White space counts as one character between two others.
struct TextMeasure {
  uint32_t chars = 0;   // code points
  uint32_t commas = 0;  // of Latin, Arabic, Chinese and Japanese
  uint32_t words = 0;   // pieces between white space that hold a letter or digit
};
TextMeasure measure_text(std::string_view text);

struct PageMeasures {
  std::vector<TextMeasure> texts;               // by node; nothing for elements
  std::vector<uint32_t> class_marks, id_marks;  // NameMark, by node
  std::vector<uint8_t> never;                   // by node: not shown, a script, a control
};

/// `comments` keeps what readers wrote below the page.
PageMeasures measure_page(const PageTree& tree, bool comments);

}  // namespace coppice
