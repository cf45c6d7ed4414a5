// HTTP responses as crawlers store them, and the bodies inside.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/text/header_lines.h"

namespace coppice {

/// The head and body of an HTTP response as a WARC record holds it; views of the record.
struct HttpResponse {
  int status = 0;
  HeaderLines headers;
  std::string_view body;
};

/// Nothing for a block that does not begin with an HTTP status line.
std::optional<HttpResponse> read_http(std::string_view block);

/// A body without its transfer and content encodings.
struct HttpBody {
  std::string_view plain;  // of the response itself, where nothing was to be taken off
  std::string unpacked;
  bool is_unpacked = false;
  std::string refused;  // "content-encoding br": one that is not read; empty: none
  std::string damage;   // "damaged chunks"; empty: none
  std::string_view bytes() const { return is_unpacked ? std::string_view(unpacked) : plain; }
};

/// Takes off chunks, gzip, deflate and zstd where they are there: crawlers write bodies both as they came and without
/// encodings under the same headers. What is cut short is taken as far as it goes. At most max_bytes, and 1000 times
/// the size behind the first MiB.
HttpBody decode_http(const HttpResponse& response, uint64_t max_bytes);

}  // namespace coppice
