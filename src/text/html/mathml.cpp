#include "src/text/html/mathml.h"

#include <string_view>
#include <vector>

namespace coppice {

namespace {

std::string without_blanks_at_ends(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n\f");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n\f") + 1 - begin));
}

/// Recurses as deep as the tree, which is bounded.
void write(const PageTree& tree, uint32_t node, std::string& out);

void write_children(const PageTree& tree, uint32_t node, std::string& out) {
  for (const uint32_t child : children(tree, node)) write(tree, child, out);
}

/// A layout of child elements: the strings stand around them, the last one behind the last.
void write_parts(const PageTree& tree, uint32_t node, const std::vector<std::string_view>& around, std::string& out) {
  size_t part = 0;
  for (const uint32_t child : children(tree, node)) {
    if (tree.nodes[child].tag == Tag::text) continue;
    if (part < around.size()) out += around[part];
    ++part;
    write(tree, child, out);
  }
  if (part > 0) out += around.back();
}

void write(const PageTree& tree, uint32_t node, std::string& out) {
  switch (tree.nodes[node].tag) {
    case Tag::text:
      out += without_blanks_at_ends(tree.text_of(node));
      return;
    case Tag::annotation:
    case Tag::mphantom:
      return;
    case Tag::mspace:
      out += ' ';
      return;
    case Tag::mfrac:
      return write_parts(tree, node, {"\\frac{", "}{", "}"}, out);
    case Tag::msqrt:
      out += "\\sqrt{";
      write_children(tree, node, out);
      out += '}';
      return;
    case Tag::mroot:
      return write_parts(tree, node, {"\\root{", "}{", "}"}, out);
    case Tag::msup:
    case Tag::mover:
      return write_parts(tree, node, {"", "^{", "}"}, out);
    case Tag::msub:
    case Tag::munder:
      return write_parts(tree, node, {"", "_{", "}"}, out);
    case Tag::msubsup:
    case Tag::munderover:
      return write_parts(tree, node, {"", "_{", "}^{", "}"}, out);
    case Tag::mfenced:
      out += '(';
      write_parts(tree, node, {"", ",", ",", ",", ",", ",", ",", ""}, out);
      out += ')';
      return;
    case Tag::mtr:
      write_children(tree, node, out);
      out += "; ";
      return;
    case Tag::mtd:
      write_children(tree, node, out);
      out += ' ';
      return;
    default:
      return write_children(tree, node, out);
  }
}

}  // namespace

std::string linear_mathml(const PageTree& tree, uint32_t math) {
  std::string out;
  write_children(tree, math, out);
  return without_blanks_at_ends(out);
}

}  // namespace coppice
