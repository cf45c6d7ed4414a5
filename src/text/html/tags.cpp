#include "src/text/html/tags.h"

#include <array>

namespace coppice {

namespace {

// In the order of Tag.
constexpr TagTraits kTraits[] = {
    {.name = ""},
    {.name = "#text", .is_phrasing = true, .breaks_block = false},
    {.name = "#formula", .is_phrasing = true, .breaks_block = false},
    {.name = "a", .breaks_block = false},
    {.name = "abbr", .is_phrasing = true, .breaks_block = false},
    {.name = "acronym", .is_phrasing = true, .breaks_block = false},
    {.name = "address", .newlines = 1},
    {.name = "annotation", .breaks_block = false},
    {.name = "applet", .is_void = true},
    {.name = "area"},
    {.name = "article", .newlines = 2},
    {.name = "aside", .newlines = 1},
    {.name = "audio", .is_phrasing = true, .is_void = true},
    {.name = "b", .is_phrasing = true, .breaks_block = false},
    {.name = "base"},
    {.name = "basefont"},
    {.name = "bdi", .is_phrasing = true, .breaks_block = false},
    {.name = "bdo", .is_phrasing = true, .breaks_block = false},
    {.name = "big", .is_phrasing = true, .breaks_block = false},
    {.name = "blockquote", .newlines = 2},
    {.name = "body", .newlines = 1},
    {.name = "br", .is_phrasing = true},
    {.name = "button", .is_phrasing = true, .is_void = true},
    {.name = "canvas", .is_void = true},
    {.name = "caption", .newlines = 1},
    {.name = "center", .newlines = 1},
    {.name = "cite", .is_phrasing = true, .breaks_block = false},
    {.name = "code", .is_phrasing = true, .breaks_block = false},
    {.name = "col"},
    {.name = "colgroup"},
    {.name = "data", .is_phrasing = true, .breaks_block = false},
    {.name = "datalist", .is_phrasing = true, .is_void = true},
    {.name = "dd", .newlines = 1},
    {.name = "del", .breaks_block = false},
    {.name = "details", .newlines = 1},
    {.name = "dfn", .is_phrasing = true, .breaks_block = false},
    {.name = "dialog", .newlines = 1},
    {.name = "dir", .newlines = 2},
    {.name = "div", .newlines = 1},
    {.name = "dl", .newlines = 2},
    {.name = "dt", .newlines = 1},
    {.name = "em", .is_phrasing = true, .breaks_block = false},
    {.name = "embed", .is_phrasing = true, .is_void = true},
    {.name = "fieldset", .newlines = 1},
    {.name = "figcaption", .newlines = 1},
    {.name = "figure", .newlines = 1},
    {.name = "font", .is_phrasing = true, .breaks_block = false},
    {.name = "footer", .newlines = 1},
    {.name = "form", .newlines = 1},
    {.name = "frame", .is_void = true},
    {.name = "frameset", .is_void = true},
    {.name = "h1", .newlines = 2},
    {.name = "h2", .newlines = 2},
    {.name = "h3", .newlines = 2},
    {.name = "h4", .newlines = 2},
    {.name = "h5", .newlines = 2},
    {.name = "h6", .newlines = 2},
    {.name = "head", .is_void = true},
    {.name = "header", .newlines = 1},
    {.name = "hgroup", .newlines = 1},
    {.name = "hr", .newlines = 2},
    {.name = "html", .newlines = 1},
    {.name = "i", .is_phrasing = true, .breaks_block = false},
    {.name = "iframe", .is_void = true},
    {.name = "img", .is_phrasing = true, .breaks_block = false},
    {.name = "input", .is_phrasing = true, .is_void = true},
    {.name = "ins", .breaks_block = false},
    {.name = "kbd", .is_phrasing = true, .breaks_block = false},
    {.name = "label", .is_phrasing = true},
    {.name = "legend", .newlines = 1},
    {.name = "li", .newlines = 1},
    {.name = "link", .is_void = true},
    {.name = "main", .newlines = 2},
    {.name = "map", .is_void = true},
    {.name = "mark", .is_phrasing = true, .breaks_block = false},
    {.name = "math", .is_phrasing = true, .breaks_block = false},
    {.name = "menu", .newlines = 2},
    {.name = "meta", .is_void = true},
    {.name = "meter", .is_phrasing = true, .is_void = true},
    {.name = "nav", .newlines = 1},
    {.name = "noframes", .newlines = 1},
    {.name = "noscript", .is_phrasing = true, .is_void = true},
    {.name = "object", .is_phrasing = true, .is_void = true},
    {.name = "ol", .newlines = 2},
    {.name = "optgroup", .is_void = true},
    {.name = "option", .is_void = true},
    {.name = "output", .is_phrasing = true},
    {.name = "p", .newlines = 2},
    {.name = "param"},
    {.name = "picture"},
    {.name = "pre", .newlines = 2},
    {.name = "progress", .is_phrasing = true, .is_void = true},
    {.name = "q", .is_phrasing = true, .breaks_block = false},
    {.name = "rp", .is_phrasing = true, .breaks_block = false},
    {.name = "rt", .is_phrasing = true, .breaks_block = false},
    {.name = "ruby", .is_phrasing = true, .breaks_block = false},
    {.name = "s", .is_phrasing = true, .breaks_block = false},
    {.name = "samp", .is_phrasing = true, .breaks_block = false},
    {.name = "script", .is_phrasing = true, .is_void = true},
    {.name = "section", .newlines = 2},
    {.name = "select", .is_phrasing = true, .is_void = true},
    {.name = "small", .is_phrasing = true, .breaks_block = false},
    {.name = "source"},
    {.name = "span", .is_phrasing = true, .breaks_block = false},
    {.name = "strike", .is_phrasing = true, .breaks_block = false},
    {.name = "strong", .is_phrasing = true, .breaks_block = false},
    {.name = "style", .is_void = true},
    {.name = "sub", .is_phrasing = true, .breaks_block = false},
    {.name = "summary", .newlines = 1},
    {.name = "sup", .is_phrasing = true, .breaks_block = false},
    {.name = "svg", .is_phrasing = true, .is_void = true},
    {.name = "table", .newlines = 2},
    {.name = "tbody", .newlines = 1},
    {.name = "td"},
    {.name = "textarea", .is_phrasing = true, .is_void = true},
    {.name = "tfoot", .newlines = 1},
    {.name = "th"},
    {.name = "thead", .newlines = 1},
    {.name = "time", .is_phrasing = true, .breaks_block = false},
    {.name = "title"},
    {.name = "tr", .newlines = 1},
    {.name = "track"},
    {.name = "tt", .is_phrasing = true, .breaks_block = false},
    {.name = "u", .is_phrasing = true, .breaks_block = false},
    {.name = "ul", .newlines = 2},
    {.name = "var", .is_phrasing = true, .breaks_block = false},
    {.name = "video", .is_void = true},
    {.name = "wbr", .is_phrasing = true, .breaks_block = false},
    {.name = "xmp", .newlines = 1},
    {.name = "maction", .breaks_block = false},
    {.name = "menclose", .breaks_block = false},
    {.name = "mfenced", .breaks_block = false},
    {.name = "mfrac", .breaks_block = false},
    {.name = "mi", .breaks_block = false},
    {.name = "mjx-container", .is_phrasing = true, .breaks_block = false},
    {.name = "mmultiscripts", .breaks_block = false},
    {.name = "mn", .breaks_block = false},
    {.name = "mo", .breaks_block = false},
    {.name = "mover", .breaks_block = false},
    {.name = "mpadded", .breaks_block = false},
    {.name = "mphantom", .breaks_block = false},
    {.name = "mroot", .breaks_block = false},
    {.name = "mrow", .breaks_block = false},
    {.name = "ms", .breaks_block = false},
    {.name = "mspace", .breaks_block = false},
    {.name = "msqrt", .breaks_block = false},
    {.name = "mstyle", .breaks_block = false},
    {.name = "msub", .breaks_block = false},
    {.name = "msubsup", .breaks_block = false},
    {.name = "msup", .breaks_block = false},
    {.name = "mtable", .breaks_block = false},
    {.name = "mtd", .breaks_block = false},
    {.name = "mtext", .breaks_block = false},
    {.name = "mtr", .breaks_block = false},
    {.name = "munder", .breaks_block = false},
    {.name = "munderover", .breaks_block = false},
    {.name = "semantics", .breaks_block = false},
};
static_assert(std::size(kTraits) == kNumTags);

constexpr size_t kSlots = 512;

constexpr size_t slot_of(std::string_view name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return (hash ^ hash >> 15) % kSlots;
}

/// Open addressing over the names; 0 is an empty slot.
constexpr std::array<uint8_t, kSlots> kTable = [] {
  std::array<uint8_t, kSlots> table{};
  for (size_t i = static_cast<size_t>(Tag::a); i < std::size(kTraits); ++i) {
    size_t slot = slot_of(kTraits[i].name);
    while (table[slot] != 0) slot = (slot + 1) % kSlots;
    table[slot] = static_cast<uint8_t>(i);
  }
  return table;
}();

}  // namespace

Tag find_tag(std::string_view name) {
  for (size_t slot = slot_of(name); kTable[slot] != 0; slot = (slot + 1) % kSlots)
    if (kTraits[kTable[slot]].name == name) return static_cast<Tag>(kTable[slot]);
  return Tag::unknown;
}

const TagTraits& traits(Tag tag) { return kTraits[static_cast<size_t>(tag)]; }

}  // namespace coppice
