#include "src/text/html/page_metadata.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/utf8_byte.h"

namespace coppice {

namespace {

constexpr size_t kMaxTitleBytes = 1000, kTitleBytesRead = 16 * kMaxTitleBytes;  // white space and all

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (!std::isspace(static_cast<unsigned char>(c))) {
      out += c;
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  if (out.ends_with(' ')) out.pop_back();
  return out;
}

size_t num_words(std::string_view text) {
  size_t words = 0;
  bool in_word = false;
  for (const char c : text) {
    const bool blank = c == ' ';
    words += !blank && !in_word;
    in_word = !blank;
  }
  return words;
}

/// In one line, and no longer than a title is.
std::string title_of(std::string_view text) {
  return std::string(first_bytes(one_line(first_bytes(text, kTitleBytesRead)), kMaxTitleBytes));
}

/// Without " | Site" or " - Site" behind it, when what is left says enough.
std::string without_site(const std::string& title) {
  for (const std::string_view separator : {" | ", " - ", " \u2013 ", " \u2014 ", " \u00BB ", " :: ", " / "}) {
    const size_t at = title.rfind(separator);
    if (at == std::string::npos) continue;
    if (num_words(std::string_view(title).substr(0, at)) >= 3) return title.substr(0, at);
  }
  return title;
}

/// A list as in content="noindex, nofollow" holds a word that forbids.
bool forbids(std::string_view content) {
  const std::string words = lower_case(content);
  for (size_t begin = 0; begin < words.size();) {
    const size_t end = std::min(words.find_first_of(", \t\r\n", begin), words.size());
    const std::string_view word = std::string_view(words).substr(begin, end - begin);
    if (word == "noindex" || word == "noai" || word == "none") return true;
    begin = end + 1;
  }
  return false;
}

/// The day in the front of an ISO date.
std::string day_of(std::string_view date) {
  const size_t begin = date.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  date = date.substr(begin, 10);
  if (date.size() < 10) return {};
  for (size_t i = 0; i < 10; ++i)
    if (i == 4 || i == 7 ? date[i] != '-' : std::isdigit(static_cast<unsigned char>(date[i])) == 0) return {};
  return std::string(date);
}

/// Letters and digits in a row, in lower case.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : text) {
    const auto letter = static_cast<unsigned char>(c);
    if (std::isalnum(letter) || letter >= 0x80) {
      word += static_cast<char>(std::tolower(letter));
    } else if (!word.empty()) {
      words.push_back(std::move(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

// Names under which pages give the date of publication, best first.
constexpr std::array<std::string_view, 10> kDateNames = {
    "article:published_time", "datepublished", "date",        "dc.date",          "dc.date.issued",
    "dcterms.date",           "pubdate",       "publishdate", "parsely-pub-date", "sailthru.date"};

}  // namespace

PageMetadata page_metadata(const PageTree& tree) {
  PageMetadata metadata;
  std::string title, og_title, og_url, time;
  size_t date_rank = kDateNames.size();
  for (uint32_t n = 1; n < tree.nodes.size(); ++n) {
    const PageNode& node = tree.nodes[n];
    switch (node.tag) {
      case Tag::html:
        if (metadata.language.empty()) metadata.language = tree.attribute(n, Attribute::lang);
        break;
      case Tag::title:
        if (title.empty()) title = title_of(tree.whole_text(n, kTitleBytesRead));
        break;
      case Tag::time:
        if (time.empty()) time = day_of(tree.attribute(n, Attribute::datetime));
        break;
      case Tag::link:
        if (tree.attribute(n, Attribute::rel) == "canonical" && metadata.url.empty())
          metadata.url = tree.attribute(n, Attribute::href);
        break;
      case Tag::meta: {
        std::string name = lower_case(tree.attribute(n, Attribute::name));
        if (name.empty()) name = lower_case(tree.attribute(n, Attribute::property));
        if (name.empty()) name = lower_case(tree.attribute(n, Attribute::itemprop));
        const std::string_view content = tree.attribute(n, Attribute::content);
        if (name == "robots" && forbids(content)) metadata.opts_out = true;
        if (name == "tdm-reservation" && one_line(content) == "1") metadata.opts_out = true;
        if (name == "og:title" && og_title.empty()) og_title = title_of(content);
        if (name == "og:url" && og_url.empty()) og_url = content;
        const auto rank = static_cast<size_t>(std::ranges::find(kDateNames, name) - kDateNames.begin());
        if (rank < date_rank)
          if (std::string day = day_of(content); !day.empty()) {
            metadata.date = std::move(day);
            date_rank = rank;
          }
        break;
      }
      default:
        break;
    }
  }
  metadata.title = !og_title.empty() ? without_site(og_title) : without_site(title);
  if (metadata.date.empty()) metadata.date = std::move(time);
  if (!metadata.url.starts_with("http")) metadata.url = og_url.starts_with("http") ? og_url : std::string();
  return metadata;
}

TitleWords::TitleWords(std::string_view title) {
  for (std::string& word : words_of(title)) words_.insert(std::move(word));
}

bool TitleWords::repeated_by(std::string_view heading) const {
  size_t all = 0, missing = 0;
  for (const std::string& word : words_of(heading)) {
    all += word.size() + 1;
    if (!words_.contains(word)) missing += word.size() + 1;
  }
  return all > 0 && missing * 4 < all;
}

}  // namespace coppice
