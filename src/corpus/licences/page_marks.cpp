#include "src/corpus/licences/page_marks.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/corpus/licences/spdx.h"
#include "src/text/ascii_case.h"
#include "src/text/document_metadata.h"
#include "src/text/tag_scanner.h"

namespace coppice {

namespace {

bool has_word(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const size_t end = std::min(list.find_first_of(kAsciiBlanks), list.size());
    if (equals_ignoring_case(list.substr(0, end), word)) return true;
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return false;
}

void append(std::string& all, std::string_view more) {
  if (more.empty()) return;
  all.append(all.empty() ? "" : "; ").append(more);
}

}  // namespace

PageMarks find_page_marks(std::string_view html) {
  PageMarks marks;
  const size_t last_fifth = html.size() - html.size() / 5;
  bool is_head = true;
  int footers = 0;
  TagScanner tags(html);
  for (MarkupTag tag; tags.next(tag);) {
    if (tag.is("body")) is_head = false;
    if (tag.is("footer")) ++footers;
    if (tag.is("/footer")) footers = std::max(footers - 1, 0);
    if (tag.is("meta")) {
      const std::string_view name = trimmed_ascii(tag.find("name").value_or(""));
      const std::string_view content = trimmed_ascii(tag.find("content").value_or(""));
      if (equals_ignoring_case(name, "robots")) append(marks.robots, content);
      if (equals_ignoring_case(name, "tdm-reservation") && marks.tdm_reservation.empty())
        marks.tdm_reservation = content;
    }
    if (!tag.is("a") && !tag.is("link") && !tag.is("area")) continue;
    const bool is_named = has_word(tag.find("rel").value_or(""), "license");
    if (!is_named && !is_head && footers == 0 && tag.begin < last_fifth) continue;
    std::string id = licence_of_address(tag.find("href").value_or(""));
    if (!id.empty() && std::ranges::find(marks.licences, id) == marks.licences.end())
      marks.licences.push_back(std::move(id));
  }
  return marks;
}

Json page_license_json(const std::vector<std::string>& licences) {
  return licences.size() == 1 ? Json(licences.front()) : Json(licences);
}

void keep_page_marks(const PageMarks& marks, Document& document) {
  if (!marks.licences.empty()) set_metadata(document, "page_license", page_license_json(marks.licences));
  if (!marks.robots.empty()) set_metadata(document, "robots", marks.robots);
  if (!marks.tdm_reservation.empty() && trimmed_ascii(member_text(document, "tdm_reservation")) != "1")
    set_metadata(document, "tdm_reservation", marks.tdm_reservation);
}

}  // namespace coppice
