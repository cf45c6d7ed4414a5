// What a page says of itself in its head: title, date, address, language, and whether it may be used.
#pragma once

#include <string>
#include <string_view>

#include "src/text/html/page_tree.h"

namespace coppice {

struct PageMetadata {
  std::string title;      // og:title, else <title> without the name of the site
  std::string date;       // YYYY-MM-DD of its publication; "" when it names none
  std::string url;        // canonical address, absolute; "" when it names none
  std::string language;   // <html lang>
  bool opts_out = false;  // noindex, noai or none for robots, or tdm-reservation: 1
};

PageMetadata page_metadata(const PageTree& tree);

/// More than three quarters of a heading, by length, are words of the title.
bool repeats_title(std::string_view heading, std::string_view title);

}  // namespace coppice
