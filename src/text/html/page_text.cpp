#include "src/text/html/page_text.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "src/text/html/boilerpipe.h"
#include "src/text/html/formulas.h"
#include "src/text/html/page_measures.h"
#include "src/text/html/reader_mode.h"
#include "src/text/html/text_writer.h"

namespace coppice {

namespace {

constexpr double kShortestShare = 0.3;  // of the block classifier's text, that reader mode must find

using Selection = std::vector<uint8_t>;

/// A page that is read and measured.
struct ReadPage {
  PageTree tree;
  PageMeasures measures;
  PageText found;  // all but the text
};

ReadPage read(std::string_view html, const PageOptions& options) {
  ReadPage page;
  read_page(html, options.limits, page.tree);
  page.found.refusal = page.tree.refusal;
  if (page.tree.refusal != Refusal::none) return page;
  page.found.metadata = page_metadata(page.tree);
  if (page.found.metadata.opts_out && options.respects_opt_out) {
    page.found.refusal = Refusal::opt_out;
    return page;
  }
  if (options.formulas) keep_formulas(page.tree);
  page.measures = measure_page(page.tree, options.comments);
  return page;
}

uint64_t num_chars(const ReadPage& page, const Selection& selected) {
  uint64_t chars = 0;
  for (size_t n = 0; n < selected.size(); ++n)
    if (selected[n]) chars += page.measures.texts[n].chars;
  return chars;
}

Selection choose(const ReadPage& page, PageJoin join) {
  const std::string_view title = page.found.metadata.title;
  if (join == PageJoin::boilerpipe) return boilerpipe(page.tree, page.measures, title);
  Selection selected = reader_mode(page.tree, page.measures, title);
  if (join == PageJoin::reader) return selected;
  const Selection other = boilerpipe(page.tree, page.measures, title);
  if (join == PageJoin::reader_or_boilerpipe)
    return num_chars(page, selected) < kShortestShare * num_chars(page, other) ? other : selected;
  for (size_t n = 0; n < selected.size(); ++n)
    selected[n] = join == PageJoin::intersection ? selected[n] & other[n] : selected[n] | other[n];
  return selected;
}

PageText written(const ReadPage& page, PageJoin join) {
  PageText result = page.found;
  if (result.refusal != Refusal::none) return result;
  result.metadata.title = composed(std::move(result.metadata.title));
  result.text = composed(write_text(page.tree, choose(page, join)));
  if (page.tree.deadline.has_passed()) {
    result.text.clear();
    result.refusal = Refusal::timeout;
  }
  for (size_t i = 0; i < result.text.size(); ++i) {
    result.chars += (static_cast<unsigned char>(result.text[i]) & 0xC0) != 0x80;
    result.replaced += result.text[i] == '\xEF' && result.text.compare(i, 3, "\xEF\xBF\xBD") == 0;
  }
  return result;
}

}  // namespace

std::optional<PageJoin> find_page_join(std::string_view name) {
  static constexpr std::pair<std::string_view, PageJoin> kNames[] = {
      {"reader_or_boilerpipe", PageJoin::reader_or_boilerpipe},
      {"reader", PageJoin::reader},
      {"boilerpipe", PageJoin::boilerpipe},
      {"intersection", PageJoin::intersection},
      {"union", PageJoin::all},
  };
  for (const auto& [known, join] : kNames)
    if (known == name) return join;
  return std::nullopt;
}

PageText extract_page(std::string_view html, const PageOptions& options) {
  return written(read(html, options), options.join);
}

PageTexts extract_page_by_both(std::string_view html, const PageOptions& options) {
  const ReadPage page = read(html, options);
  return {written(page, PageJoin::reader), written(page, PageJoin::boilerpipe)};
}

}  // namespace coppice
