// What a page says of itself in its head: title, date, address, language, and whether it may be used.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>

#include "src/text/html/page_tree.h"

namespace coppice {

struct PageMetadata {
  std::string title;      // og:title, else <title> without the name of the site; of 1,000 bytes at most
  std::string date;       // YYYY-MM-DD of its publication; "" when it names none
  std::string url;        // canonical address, absolute; "" when it names none
  std::string language;   // <html lang>
  bool opts_out = false;  // noindex, noai or none for robots, or tdm-reservation: 1
};

PageMetadata page_metadata(const PageTree& tree);

/// The words of a title, to compare many headings with.
class TitleWords {
 public:
  explicit TitleWords(std::string_view title);
  /// More than three quarters of the heading, by length, are words of the title.
  bool repeated_by(std::string_view heading) const;

 private:
  std::unordered_set<std::string> words_;
};

}  // namespace coppice
