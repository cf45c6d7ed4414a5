// What a plain text shows of its form: sentences, sections by their titles, lists. Extraction writes a block as lines
// between empty ones and an item as "- ..." (src/text/html/text_writer.h); Markdown is read as well.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace coppice {

/// Bytes [begin, end) of a text.
struct ByteSpan {
  size_t begin = 0, end = 0;
  size_t size() const { return end - begin; }
  std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
};

struct Section {
  ByteSpan title;       // without its `#`
  size_t sentence = 0;  // the first one below it, a place in Outline::sentences
  size_t end = 0;       // behind its last sentence
};

struct ItemList {
  ByteSpan title;  // the heading, or the line that ends with a colon, right above it; without `#` and colon
  ByteSpan items;  // whole lines, without the last one's end
  size_t count = 0;
};

struct Outline {
  std::vector<ByteSpan> sentences;  // of paragraphs; a title or an item is none
  std::vector<Section> sections;    // those with a sentence
  std::vector<ItemList> lists;      // of 3 to 20 items, with a title
};

/// In one pass over valid UTF-8. The first line is a title only as one of Markdown's: a window begins anywhere.
Outline outline_of(std::string_view text);

/// A line alone between empty lines that could be a title: 3 to 80 bytes with a letter, a capital or a digit first, no
/// sign of a sentence last; or a line of Markdown's `# ...`.
bool is_title(std::string_view line, bool stands_alone);

/// Where a sentence that begins at `begin` ends: behind a stop, `!` or `?` and the closing signs after it that white
/// space follows, or behind a full stop of Chinese and Japanese. A stop behind a capital and up to two letters (Mr.,
/// A.) or before a small letter ends none. `text.size()` without an end.
size_t sentence_end(std::string_view text, size_t begin);

}  // namespace coppice
