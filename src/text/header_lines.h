// The lines behind the first one of a WARC record and of an HTTP response.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice {

/// Lines `name: value` as WARC and HTTP write them; names compare without case. Views of the head it was made from.
class HeaderLines {
 public:
  /// Of a head without its first line. A line that begins with a blank belongs to the one before; lines without a colon
  /// are passed over: servers send such things.
  explicit HeaderLines(std::string_view head);
  HeaderLines() = default;
  std::string_view find(std::string_view name) const;  // the first of that name, trimmed; empty when there is none
  std::string join(std::string_view name) const;       // all of that name, with `; ` between them

 private:
  std::vector<std::pair<std::string_view, std::string_view>> lines_;
};

}  // namespace coppice
