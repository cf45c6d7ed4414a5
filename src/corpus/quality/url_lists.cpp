#include "src/corpus/quality/url_lists.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/text/words/words.h"

namespace coppice {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;
constexpr size_t kLongestHost = 253;  // RFC 1035; each of its ends is looked for

std::string lower_ascii(std::string_view text) {
  std::string lower(text);
  for (char& byte : lower)
    if (byte >= 'A' && byte <= 'Z') byte = static_cast<char>(byte - 'A' + 'a');
  return lower;
}

bool is_word_byte(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || static_cast<signed char>(byte) < 0;
}

}  // namespace

std::string lower_host(std::string_view url) {
  if (const size_t scheme = url.find("://"); scheme != std::string_view::npos) url.remove_prefix(scheme + 3);
  url = url.substr(0, url.find_first_of("/?#"));
  if (const size_t user = url.rfind('@'); user != std::string_view::npos) url.remove_prefix(user + 1);
  url = url.substr(0, url.find(':'));
  while (url.ends_with('.')) url.remove_suffix(1);
  return lower_ascii(url);
}

UrlLists::UrlLists(const std::filesystem::path& domains, const std::filesystem::path& words) {
  const auto read = [&](const std::filesystem::path& file, const char* name, Set& set, const auto& is_possible) {
    if (file.empty()) return;
    const std::string text = read_file(file, kMostBytes);
    inputs_.push_back(fmt::format("{} {}", name, sha256_hex(text)));
    size_t number = 0;
    for_each_line(text, [&](std::string_view line) {
      ++number;
      line = strip_blanks(line.substr(0, line.find('#')));
      if (line.empty()) return;
      std::string entry = lower_ascii(line);
      if (!is_possible(entry))
        throw UserError::bad_file(
            fmt::format("{}:{}", file.string(), number),
            fmt::format("got '{}', expected {}", line,
                        &set == &domains_ ? "a domain as in example.com" : "one word of letters and digits"));
      set.insert(std::move(entry));
    });
  };
  read(domains, "url_domains", domains_, [](const std::string& entry) { return lower_host(entry) == entry; });
  read(words, "url_words", words_, [](const std::string& entry) { return std::ranges::all_of(entry, is_word_byte); });
}

bool UrlLists::is_domain_listed(std::string_view url) const {
  const std::string host = lower_host(url);
  if (host.size() > kLongestHost) return false;
  for (std::string_view domain = host; !domain.empty();) {
    if (domains_.contains(domain)) return true;
    const size_t stop = domain.find('.');
    domain = stop == std::string_view::npos ? "" : domain.substr(stop + 1);
  }
  return false;
}

void UrlLists::measure(std::string_view url, std::span<double> values) const {
  if (url.empty()) return;
  values[0] = is_domain_listed(url);
  const std::string lower = lower_ascii(url);
  uint64_t hits = 0;
  for (auto at = lower.begin(); at != lower.end();) {
    const auto end = std::find_if_not(at, lower.end(), is_word_byte);
    if (end != at) hits += words_.contains(std::string_view(at, end));
    at = std::find_if(end, lower.end(), is_word_byte);
  }
  values[1] = static_cast<double>(hits);
}

}  // namespace coppice
