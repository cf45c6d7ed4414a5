// Lists of addresses that a user brings: domains, and words of addresses.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace coppice {

class UrlLists {
 public:
  /// Files of one entry a line, # begins a comment; an empty path is an empty list. UserError::bad_file for a file that
  /// cannot be read and for an entry that can never be met.
  UrlLists(const std::filesystem::path& domains, const std::filesystem::path& words);

  /// Writes the values of kUrl: 1 where the host, or a domain that it is part of, is listed; how many of the words
  /// (letters and digits in a row) of the address are. Not defined for an empty address. Case does not count.
  void measure(std::string_view url, std::span<double> values) const;
  bool is_domain_listed(std::string_view url) const;
  /// `url_domains <SHA-256>` and the like: part of a step's fingerprint.
  std::vector<std::string> inputs() const { return inputs_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Set = std::unordered_set<std::string, Hash, std::equal_to<>>;

  Set domains_, words_;
  std::vector<std::string> inputs_;
};

/// `example.com` of `https://user@Example.com:8080/path`; lower case, without a stop at the end.
std::string lower_host(std::string_view url);

}  // namespace coppice
