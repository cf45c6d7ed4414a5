// The elements of a page that some rule tells apart, one row each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace coppice {

// clang-format off
enum class Tag : uint8_t {
  unknown,  // an element of another name
  text,     // no element: characters
  formula,  // no element either: what a formula was written as, in TeX
  a, abbr, acronym, address, annotation, applet, area, article, aside, audio, b, base, basefont, bdi, bdo, big,
  blockquote, body, br, button, canvas, caption, center, cite, code, col, colgroup, data, datalist, dd, del, details,
  dfn, dialog, dir, div, dl, dt, em, embed, fieldset, figcaption, figure, font, footer, form, frame, frameset, h1, h2,
  h3, h4, h5, h6, head, header, hgroup, hr, html, i, iframe, img, input, ins, kbd, label, legend, li, link, main, map,
  mark, math, menu, meta, meter, nav, noframes, noscript, object, ol, optgroup, option, output, p, param, picture,
  pre, progress, q, rp, rt, ruby, s, samp, script, section, select, small, source, span, strike, strong, style, sub,
  summary, sup, svg, table, tbody, td, textarea, tfoot, th, thead, time, title, tr, track, tt, u, ul, var, video, wbr,
  xmp,
  // MathML and what MathJax puts around it
  maction, menclose, mfenced, mfrac, mi, mjx_container, mmultiscripts, mn, mo, mover, mpadded, mphantom, mroot, mrow,
  ms, mspace, msqrt, mstyle, msub, msubsup, msup, mtable, mtd, mtext, mtr, munder, munderover, semantics,
};
// clang-format on

inline constexpr size_t kNumTags = static_cast<size_t>(Tag::semantics) + 1;

struct TagTraits {
  std::string_view name;
  uint8_t newlines = 0;      // around its text: 2 = an empty line between paragraphs, 1 = a line of its own, 0 = inline
  bool is_phrasing = false;  // part of a sentence: runs of such nodes in a <div> are a paragraph
  bool breaks_block = true;  // ends a block of the block classifier
  bool is_void = false;      // shows no text whatever lies in it: scripts, controls, media
};

Tag find_tag(std::string_view lower_case_name);
const TagTraits& traits(Tag tag);

constexpr bool is_heading(Tag tag) { return tag >= Tag::h1 && tag <= Tag::h6; }

}  // namespace coppice
