#include "src/text/html/text_writer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

namespace coppice {

namespace {

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f'; }

/// Collects text; separators wait until the next text arrives, so that none leads, trails or doubles.
class TextBuilder {
 public:
  explicit TextBuilder(std::string_view cell) : cell_(cell) {}

  void line_break(int newlines) { newlines_ = std::max(newlines_, newlines); }
  void next_cell() { cell_waits_ = true; }
  void bullet(bool waits) { bullet_ = waits; }

  void add_flowing(std::string_view text) {
    size_t i = 0;
    while (i < text.size()) {
      if (is_blank(text[i])) {
        space_ = true;
        ++i;
        continue;
      }
      size_t end = i;
      while (end < text.size() && !is_blank(text[end])) ++end;
      separate();
      out_.append(text.substr(i, end - i));
      i = end;
    }
  }

  void add_verbatim(std::string_view text) {
    if (text.empty()) return;
    separate();
    out_.append(text);
  }

  std::string take() {
    while (!out_.empty() && is_blank(out_.back())) out_.pop_back();
    return std::move(out_);
  }

 private:
  void separate() {
    if (!out_.empty()) {
      if (newlines_ > 0) {
        while (!out_.empty() && out_.back() == '\n') out_.pop_back();  // of verbatim text
        out_.append(static_cast<size_t>(newlines_), '\n');
      } else if (cell_waits_) {
        out_.append(cell_);
      } else if (space_ && !is_blank(out_.back())) {
        out_ += ' ';
      }
    }
    if (bullet_) out_ += "- ";
    newlines_ = 0;
    space_ = bullet_ = cell_waits_ = false;
  }

  std::string_view cell_;
  std::string out_;
  int newlines_ = 0;
  bool space_ = false, bullet_ = false, cell_waits_ = false;
};

/// Whether composing may change the character or one beside it. Below U+0300 nothing does.
bool may_compose(utf8proc_int32_t character) {
  if (character < 0x300) return false;
  const utf8proc_property_t* property = utf8proc_get_property(character);
  return property->combining_class != 0 || (property->decomp_seqindex != UINT16_MAX && property->decomp_type == 0) ||
         (property->comb_index != UINT16_MAX && (property->comb_index & 0x8000) != 0) ||
         (character >= 0x1100 && character <= 0x11FF);
}

}  // namespace

std::string write_text(const PageTree& tree, const std::vector<uint8_t>& selected, std::string_view cell,
                       uint32_t root) {
  struct Open {
    uint32_t end;
    Tag tag;
  };
  TextBuilder text(cell);
  std::vector<Open> open;
  size_t preformatted = 0;  // how many of them are <pre>
  const auto close_until = [&](uint32_t n) {
    for (; !open.empty() && open.back().end <= n; open.pop_back()) {
      text.line_break(traits(open.back().tag).newlines);
      preformatted -= open.back().tag == Tag::pre;
      if (open.back().tag == Tag::li) text.bullet(false);  // of an item without text
    }
  };
  for (uint32_t n = root + 1; n < tree.nodes[root].end; ++n) {
    close_until(n);
    const PageNode& node = tree.nodes[n];
    if (node.tag == Tag::text || node.tag == Tag::formula) {
      if (selected[n]) {
        if (preformatted > 0) {
          text.add_verbatim(tree.text_of(n));
        } else {
          text.add_flowing(tree.text_of(n));
        }
      }
      n = node.end - 1;
      continue;
    }
    if (node.tag == Tag::br) {
      if (preformatted > 0) {
        text.add_verbatim("\n");
      } else {
        text.line_break(1);
      }
      continue;
    }
    text.line_break(traits(node.tag).newlines);
    if (node.tag == Tag::td || node.tag == Tag::th) text.next_cell();
    if (node.tag == Tag::li) text.bullet(true);
    preformatted += node.tag == Tag::pre;
    open.push_back({node.end, node.tag});
  }
  return text.take();
}

std::string composed(std::string text) {
  bool may_change = false;
  for (size_t i = 0; i < text.size() && !may_change;) {
    const auto first = static_cast<unsigned char>(text[i]);
    if (first < 0xCC) {  // up to U+02FF, and what continues it
      ++i;
      continue;
    }
    utf8proc_int32_t character = 0;
    const utf8proc_ssize_t size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + i,
                                                   static_cast<utf8proc_ssize_t>(text.size() - i), &character);
    if (size <= 0) return text;
    may_change = may_compose(character);
    i += static_cast<size_t>(size);
  }
  if (!may_change) return text;
  utf8proc_uint8_t* out = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &out, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, std::free);
  if (size == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  if (size < 0) return text;
  return std::string(reinterpret_cast<const char*>(out), static_cast<size_t>(size));
}

}  // namespace coppice
