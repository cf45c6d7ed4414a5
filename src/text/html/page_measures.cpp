#include "src/text/html/page_measures.h"

#include <algorithm>
#include <array>

#include "src/text/html/name_marks.h"

namespace coppice {

namespace {

constexpr bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// 1: a letter or digit of ASCII, or any part of another character; 2: white space; 0: a sign.
constexpr std::array<uint8_t, 256> kKinds = [] {
  std::array<uint8_t, 256> kinds{};
  for (int c = 0; c < 256; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 0x80;
    kinds[static_cast<size_t>(c)] = letter ? 1 : is_blank(static_cast<char>(c)) ? 2 : 0;
  }
  return kinds;
}();

bool is_comma(std::string_view text, size_t at) {
  for (const std::string_view comma : {"\u060C", "\uFE50", "\uFE10", "\uFE11", "\u2E41", "\u2E34", "\u2E32", "\uFF0C"})
    if (text.compare(at, comma.size(), comma) == 0) return true;
  return false;
}

}  // namespace

TextMeasure measure_text(std::string_view text) {
  TextMeasure measure;
  bool in_word = false, blank_before = true, blank_waits = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const uint8_t kind = kKinds[c];
    if (kind == 2) {
      blank_waits = !blank_before;
      in_word = false;
      continue;
    }
    if (blank_waits) ++measure.chars;
    blank_before = blank_waits = false;
    if ((c & 0xC0) != 0x80) ++measure.chars;
    if (kind == 1 && !in_word) {
      ++measure.words;
      in_word = true;
    }
    if (c == ',' || (c >= 0xD8 && is_comma(text, i))) ++measure.commas;
  }
  return measure;
}

PageMeasures measure_page(const PageTree& tree, bool comments) {
  const size_t count = tree.nodes.size();
  PageMeasures measures{.texts = std::vector<TextMeasure>(count),
                        .class_marks = std::vector<uint32_t>(count),
                        .id_marks = std::vector<uint32_t>(count),
                        .never = std::vector<uint8_t>(count)};
  for (uint32_t n = 1; n < count; ++n) {
    const PageNode& node = tree.nodes[n];
    if (node.tag == Tag::text || node.tag == Tag::formula) {
      measures.texts[n] = measure_text(tree.text_of(n));
      n = node.end - 1;  // below a formula stands what it was made of
      continue;
    }
    const uint32_t of_class = name_marks(tree.attribute(n, Attribute::class_name));
    const uint32_t of_id = name_marks(tree.attribute(n, Attribute::id));
    const bool is_comments = !comments && ((of_class | of_id) & kComments) != 0 && node.tag != Tag::body;
    if (node.is_hidden || traits(node.tag).is_void || is_comments) {
      std::fill(measures.never.begin() + n, measures.never.begin() + node.end, 1);
      n = node.end - 1;
      continue;
    }
    measures.class_marks[n] = of_class;
    measures.id_marks[n] = of_id;
  }
  return measures;
}

}  // namespace coppice
