#include "src/corpus/licences/address_table.h"

#include <algorithm>

#include "src/text/ascii_case.h"

namespace coppice {

namespace {

constexpr size_t kMaxHost = 253;

/// The key of a URL with or without scheme; empty where it has no host, or one with other signs than a host has.
/// `has_path` says whether something follows the host.
std::string key_of(std::string_view url, bool& has_path) {
  url = trimmed_ascii(url);
  const size_t whole = url.size();
  if (const size_t scheme = url.find("://"); scheme != std::string_view::npos && scheme < url.find_first_of("/?#"))
    url.remove_prefix(scheme + 3);
  else if (url.starts_with("//"))
    url.remove_prefix(2);
  const size_t end = std::min(url.find_first_of("/?#"), url.size());
  std::string_view host = url.substr(0, end), path = url.substr(end);
  const bool has_authority = url.size() < whole;  // not mailto:name@host
  if (const size_t user = host.rfind('@'); has_authority && user != std::string_view::npos)
    host.remove_prefix(user + 1);
  if (const size_t colon = host.rfind(':');
      colon != std::string_view::npos && host.find_first_not_of("0123456789", colon + 1) == std::string_view::npos)
    host = host.substr(0, colon);  // its port
  while (host.ends_with('.')) host.remove_suffix(1);
  if (host.empty() || host.size() > kMaxHost) return {};
  const bool is_host = std::ranges::all_of(host, [](char c) {
    return (lower_ascii(c) >= 'a' && lower_ascii(c) <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_';
  });
  if (!is_host) return {};
  std::string key;
  while (!host.empty()) {
    const size_t dot = host.rfind('.');
    const std::string_view label = dot == std::string_view::npos ? host : host.substr(dot + 1);
    key += lower_ascii(label) + ".";
    host = dot == std::string_view::npos ? std::string_view() : host.substr(0, dot);
  }
  path = path.substr(0, path.find('#'));
  has_path = !path.empty();
  if (has_path && !path.starts_with('/')) key += '/';
  return key.append(path);
}

}  // namespace

bool AddressTable::add(std::string_view entry) {
  bool has_path = false;
  std::string key = key_of(entry, has_path);
  if (key.empty()) return false;
  keys_.push_back(std::move(key));
  return true;
}

void AddressTable::sort() {
  std::ranges::sort(keys_);
  size_t kept = 0;
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (kept > 0 && keys_[i].starts_with(keys_[kept - 1])) continue;
    if (i != kept) keys_[kept] = std::move(keys_[i]);
    ++kept;
  }
  keys_.resize(kept);
}

bool AddressTable::holds(std::string_view url) const {
  bool has_path = false;
  std::string key = key_of(url, has_path);
  if (key.empty()) return false;
  if (!has_path) key += '/';
  const auto above = std::ranges::upper_bound(keys_, key);
  return above != keys_.begin() && key.starts_with(*std::prev(above));
}

}  // namespace coppice
