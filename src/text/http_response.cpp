// Bodies without their encodings. Headers are a hint: Common Crawl unpacks bodies and has kept their Content-Encoding
// for years, some proxies take chunks apart and keep the header, so an encoding is taken off where its signs are there.
#include "src/text/http_response.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <vector>

#include "src/base/errors.h"
#include "src/text/ascii_case.h"

namespace coppice {

namespace {

using namespace std::string_view_literals;

constexpr size_t kMaxCodings = 4;
constexpr uint64_t kFreeBytes = uint64_t{1} << 20, kMaxRatio = 1000;
constexpr size_t kStep = size_t{1} << 18;
constexpr std::string_view kGzip = "\x1F\x8B"sv, kZstd = "\x28\xB5\x2F\xFD"sv;

/// Why a body is damaged.
struct BadBody {
  std::string reason;
};

std::vector<std::string> codings_of(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const size_t comma = list.find_first_of(",;");
    const std::string_view name = trimmed_ascii(list.substr(0, comma));
    if (!name.empty()) names.push_back(lower_ascii(name));
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return names;
}

/// The size of a chunk and how many bytes its line has; nothing when no such line stands there.
std::optional<std::pair<uint64_t, size_t>> chunk_line(std::string_view text) {
  uint64_t size = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + std::min<size_t>(text.size(), 16), size, 16);
  if (error != std::errc()) return std::nullopt;
  constexpr size_t kMaxLine = 4096;  // with an extension behind a semicolon
  const size_t end = text.substr(0, kMaxLine).find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const size_t digits = static_cast<size_t>(stop - text.data());
  const std::string_view behind = trimmed_ascii(text.substr(digits, end - digits));
  if (!behind.empty() && behind.front() != ';') return std::nullopt;
  return std::pair(size, end + 1);
}

std::string join_chunks(std::string_view text) {
  std::string body;
  while (!text.empty()) {
    const auto line = chunk_line(text);
    if (!line && text.find('\n') == std::string_view::npos) break;  // cut short in a size
    if (!line) throw BadBody{"damaged chunks"};
    const auto [size, head] = *line;
    if (size == 0) break;
    text.remove_prefix(head);
    const size_t there = static_cast<size_t>(std::min<uint64_t>(size, text.size()));
    body.append(text.substr(0, there));
    text.remove_prefix(there);
    if (text.starts_with("\r\n"))
      text.remove_prefix(2);
    else if (text.starts_with('\n'))
      text.remove_prefix(1);
  }
  return body;
}

class Unpacked {
 public:
  Unpacked(std::string_view packed, uint64_t max_bytes) : packed_(packed.size()), max_bytes_(max_bytes) {}
  void add(const char* bytes, size_t count) {
    text_.append(bytes, count);
    if (text_.size() > max_bytes_) throw BadBody{fmt::format("longer than {} bytes", max_bytes_)};
    if (text_.size() > kFreeBytes && text_.size() / kMaxRatio > packed_) throw BadBody{"decompression bomb"};
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  uint64_t packed_, max_bytes_;
};

/// `window`: as inflateInit2 takes it. What ends too early is taken as far as it goes; what follows is left out.
std::string inflated(std::string_view packed, int window, uint64_t max_bytes) {
  z_stream stream{};
  COPPICE_CHECK(inflateInit2(&stream, window) == Z_OK, "zlib context");
  const std::unique_ptr<z_stream, void (*)(z_stream*)> guard(&stream, [](z_stream* s) { inflateEnd(s); });
  Unpacked text(packed, max_bytes);
  std::vector<char> block(kStep);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  for (;;) {
    stream.next_out = reinterpret_cast<Bytef*>(block.data());
    stream.avail_out = static_cast<uInt>(block.size());
    const int result = inflate(&stream, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) throw BadBody{"damaged content-encoding"};
    const size_t got = block.size() - stream.avail_out;
    text.add(block.data(), got);
    if (result == Z_STREAM_END || (got < block.size() && stream.avail_in == 0)) return text.take();
  }
}

std::string unpacked_zstd(std::string_view packed, uint64_t max_bytes) {
  const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  constexpr int kMaxWindowLog = 23;  // RFC 9659
  COPPICE_CHECK(
      context != nullptr && !ZSTD_isError(ZSTD_DCtx_setParameter(context.get(), ZSTD_d_windowLogMax, kMaxWindowLog)),
      "zstd context");
  Unpacked text(packed, max_bytes);
  std::vector<char> block(kStep);
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  for (;;) {
    ZSTD_outBuffer out{block.data(), block.size(), 0};
    const size_t left = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(left)) throw BadBody{"damaged content-encoding"};
    text.add(block.data(), out.pos);
    if (in.pos == in.size && out.pos < out.size) return text.take();
  }
}

bool looks_like_markup(std::string_view body) {
  const std::string_view text = trimmed_ascii(body.substr(0, 256));
  return text.starts_with('<') || text.starts_with("\xEF\xBB\xBF");
}

/// zlib's own wrapping, as the standard says, or bare, as some servers send it.
std::string undeflated(std::string_view packed, uint64_t max_bytes) {
  const auto at = [&](size_t i) { return i < packed.size() ? static_cast<unsigned char>(packed[i]) : 0U; };
  const bool is_wrapped = (at(0) & 0x0F) == 8 && (at(0) * 256 + at(1)) % 31 == 0;
  return inflated(packed, is_wrapped ? 15 : -15, max_bytes);
}

}  // namespace

std::optional<HttpResponse> read_http(std::string_view block) {
  if (!starts_ignoring_case(block, "HTTP/")) return std::nullopt;
  const size_t first = block.find('\n');
  const std::string_view line = trimmed_ascii(block.substr(0, first));
  const size_t blank = line.find(' ');
  HttpResponse response;
  if (blank == std::string_view::npos) return std::nullopt;
  const std::string_view code = trimmed_ascii(line.substr(blank)).substr(0, 3);
  const auto [stop, error] = std::from_chars(code.data(), code.data() + code.size(), response.status);
  if (error != std::errc() || stop != code.data() + 3) return std::nullopt;
  size_t begin = first == std::string_view::npos ? block.size() : first + 1, at = begin;
  for (size_t end; at < block.size(); at = end) {
    end = block.find('\n', at);
    end = end == std::string_view::npos ? block.size() : end + 1;
    if (trimmed_ascii(block.substr(at, end - at)).empty()) {
      response.body = block.substr(end);
      break;
    }
  }
  response.headers = HeaderLines(block.substr(begin, at - begin));
  return response;
}

HttpBody decode_http(const HttpResponse& response, uint64_t max_bytes) {
  HttpBody body{.plain = response.body};
  const auto store = [&](std::string text) {
    body.unpacked = std::move(text);
    body.is_unpacked = true;
  };
  try {
    const std::vector<std::string> transfer = codings_of(response.headers.find("Transfer-Encoding"));
    if (std::ranges::find(transfer, "chunked") != transfer.end() && chunk_line(body.bytes()))
      store(join_chunks(body.bytes()));
    std::vector<std::string> codings = codings_of(response.headers.join("Content-Encoding"));
    if (codings.size() > kMaxCodings) throw BadBody{"too many content-encodings"};
    for (; !codings.empty(); codings.pop_back()) {
      const std::string& name = codings.back();
      if ((name == "gzip" || name == "x-gzip") && body.bytes().starts_with(kGzip))
        store(inflated(body.bytes(), 15 + 16, max_bytes));
      else if (name == "deflate" && !looks_like_markup(body.bytes()) && !body.bytes().empty())
        store(undeflated(body.bytes(), max_bytes));
      else if (name == "zstd" && body.bytes().starts_with(kZstd))
        store(unpacked_zstd(body.bytes(), max_bytes));
      else if ((name == "br" || name == "dcb" || name == "dcz" || name == "compress" || name == "x-compress") &&
               !looks_like_markup(body.bytes()) && !body.bytes().empty())
        body.refused = "content-encoding " + name;
    }
  } catch (const BadBody& bad) {
    body.damage = bad.reason;
  }
  return body;
}

}  // namespace coppice
