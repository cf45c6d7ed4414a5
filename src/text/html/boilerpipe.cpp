#include "src/text/html/boilerpipe.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>

namespace coppice {

namespace {

constexpr uint32_t kLineChars = 80;       // lines that a block would be wrapped to
constexpr double kProseWordsALine = 9;    // what fewer words a line have is no running text
constexpr uint32_t kWordsBeforeEnd = 60;  // of running text, before a phrase may end the article

struct Block {
  uint32_t begin = 0, end = 0;   // nodes
  uint32_t first = 0, last = 0;  // numbers of the blocks that it was joined from
  uint32_t words = 0, link_words = 0, chars = 0;
  bool is_content = false, is_title = false, ends_text = false;
  double link_density() const { return words == 0 ? 0 : static_cast<double>(link_words) / words; }
  /// Words that stand in lines of running text.
  uint32_t prose_words() const {
    const uint32_t lines = std::max<uint32_t>(1, (chars + kLineChars - 1) / kLineChars);
    // The last line is seldom full and does not count, unless it is the only one.
    const double full = lines == 1 ? words : words * (static_cast<double>((lines - 1) * kLineChars) / chars);
    return full / std::max<uint32_t>(1, lines - 1) >= kProseWordsALine ? words : 0;
  }
};

std::string lower_case_text(const PageTree& tree, const PageMeasures& measures, uint32_t begin, uint32_t end) {
  std::string text;
  for (uint32_t n = begin; n < end; ++n) {
    if (measures.never[n]) continue;
    for (const char c : tree.text_of(n)) {
      const bool blank = std::isspace(static_cast<unsigned char>(c)) != 0;
      if (!blank) text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      if (blank && !text.empty() && text.back() != ' ') text += ' ';
    }
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

/// Phrases behind which readers speak, not the author.
bool ends_article(const std::string& text) {
  if (text.size() < 8) return false;
  for (const char* start : {"comments", "please rate this", "post a comment"})
    if (text.starts_with(start)) return true;
  for (const char* part :
       {"what you think...", "add your comment", "add comment", "reader views", "have your say", "reader comments"})
    if (text.find(part) != std::string::npos) return true;
  const size_t digits = text.find_first_not_of("0123456789");
  return digits != 0 && digits != std::string::npos &&
         (text.compare(digits, 9, " comments") == 0 || text.compare(digits, 19, " users responded in") == 0);
}

std::vector<Block> cut_blocks(const PageTree& tree, const PageMeasures& measures, std::string_view title) {
  std::string page_title;
  for (const char c : title) page_title += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  std::vector<Block> blocks;
  std::vector<uint8_t> in_link(tree.nodes.size(), 0);
  std::vector<uint32_t> breaking;  // ends of the open elements that break blocks
  Block block;
  const auto close = [&](uint32_t at) {
    if (block.words > 0 || block.chars > 0) {
      block.end = at;
      block.first = block.last = static_cast<uint32_t>(blocks.size());
      if (block.words < 15 || !page_title.empty()) {
        const bool is_short = block.words < 40;
        const std::string text = is_short ? lower_case_text(tree, measures, block.begin, block.end) : std::string();
        block.ends_text = block.words < 15 && ends_article(text);
        block.is_title = is_short && !page_title.empty() && text == page_title;
      }
      blocks.push_back(block);
    }
    block = {};
  };
  for (uint32_t n = 1; n < tree.nodes.size(); ++n) {
    while (!breaking.empty() && breaking.back() <= n) {
      close(n);
      breaking.pop_back();
    }
    const PageNode& node = tree.nodes[n];
    in_link[n] = node.tag == Tag::a || in_link[node.parent];
    if (measures.never[n]) {
      if (traits(node.tag).breaks_block && node.tag != Tag::script && node.tag != Tag::style) close(n);
      n = node.end - 1;
      continue;
    }
    if (node.tag == Tag::text || node.tag == Tag::formula) {
      const TextMeasure& measure = measures.texts[n];
      if (measure.chars > 0) {
        if (block.begin == 0) block.begin = n;
        block.words += measure.words;
        block.chars += measure.chars;
        if (in_link[n]) block.link_words += measure.words;
      }
      n = node.end - 1;
      continue;
    }
    if (traits(node.tag).breaks_block) {
      close(n);
      breaking.push_back(node.end);
    }
  }
  close(static_cast<uint32_t>(tree.nodes.size()));
  return blocks;
}

/// The tree of decisions of the paper, over a block and its neighbours.
bool looks_like_content(const Block& previous, const Block& block, const Block& next) {
  if (block.link_density() > 1.0 / 3) return false;
  if (previous.link_density() <= 0.555556) return block.words > 16 || next.words > 15 || previous.words > 4;
  return block.words > 40 || next.words > 17;
}

void join(Block& into, const Block& next) {
  into.end = next.end;
  into.last = next.last;
  into.words += next.words;
  into.is_content |= next.is_content;
  into.is_title |= next.is_title;
}

/// Joins each block of content with the one before it when at most one block lies between them.
std::vector<Block> fuse(const std::vector<Block>& blocks) {
  std::vector<Block> fused;
  for (const Block& block : blocks) {
    if (!fused.empty() && block.is_content && block.first - fused.back().last - 1 <= 1) {
      join(fused.back(), block);
    } else {
      fused.push_back(block);
    }
  }
  return fused;
}

}  // namespace

std::vector<uint8_t> boilerpipe(const PageTree& tree, const PageMeasures& measures, std::string_view title) {
  std::vector<Block> blocks = cut_blocks(tree, measures, title);
  const std::vector<Block> pieces = blocks;
  const Block nothing;
  uint32_t prose = 0;
  bool ended = false;
  for (size_t i = 0; i < blocks.size(); ++i)
    blocks[i].is_content = looks_like_content(i == 0 ? nothing : blocks[i - 1], blocks[i],
                                              i + 1 == blocks.size() ? nothing : blocks[i + 1]);
  for (Block& block : blocks) {
    if (block.is_content) prose += block.prose_words();
    if (block.ends_text && prose >= kWordsBeforeEnd) ended = true;
    if (ended) block.is_content = false;
  }
  blocks = fuse(blocks);
  std::erase_if(blocks, [](const Block& block) { return !block.is_content; });
  std::vector<uint8_t> is_kept(pieces.size(), 0);  // joining takes no piece in that lies between
  for (const Block& block : blocks) std::fill(is_kept.begin() + block.first, is_kept.begin() + block.last + 1, 1);
  blocks = fuse(blocks);
  std::vector<uint8_t> selected(tree.nodes.size(), 0);
  const auto largest = std::ranges::max_element(blocks, {}, &Block::words);
  if (largest == blocks.end()) return selected;
  // What stands between the headline and the article belongs to it.
  auto first = largest;
  for (auto block = blocks.begin(); block != largest; ++block)
    if (block->is_title) first = block;
  for (uint32_t piece = first->first; piece <= largest->last; ++piece)
    for (uint32_t n = pieces[piece].begin; is_kept[piece] && n < pieces[piece].end; ++n)
      selected[n] = (tree.nodes[n].tag == Tag::text || tree.nodes[n].tag == Tag::formula) && !measures.never[n];
  return selected;
}

}  // namespace coppice
