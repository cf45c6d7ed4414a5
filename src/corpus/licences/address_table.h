// A set of domains and addresses, asked whether it holds what a URL begins with.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// Keys are the host's labels from the last to the first, each with a dot behind it, then the path: `com.example.` is a
/// beginning of `com.example.www./a`, and of nothing under another domain. Of keys that begin with one another only the
/// shortest is kept, so that the one key that can be a beginning of a URL is its neighbour in the sorted table.
class AddressTable {
 public:
  /// `example.com` (and every domain below it), `example.com/private` or `https://example.com/private/` (addresses
  /// that begin so, of this host alone). False for what is neither.
  bool add(std::string_view entry);
  void sort();  // after the last add()
  bool holds(std::string_view url) const;
  size_t size() const { return keys_.size(); }

 private:
  std::vector<std::string> keys_;
};

}  // namespace coppice
