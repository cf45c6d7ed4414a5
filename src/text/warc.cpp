// Reading WARC files that are not quite what the standard says. Content-Length is believed only where what follows
// agrees: a record, the end of a gzip member or of the file. Every byte is copied and searched a fixed number of times.
#include "src/text/warc.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "src/base/errors.h"

namespace coppice {

namespace {

using namespace std::string_view_literals;

constexpr std::string_view kVersion = "WARC/"sv;
constexpr size_t kVersionLine = 10;                  // WARC/1.0 and a line end
constexpr size_t kMaxHead = size_t{1} << 20;         // of a record
constexpr size_t kOversizedBlock = size_t{1} << 16;  // what is shown of an oversized record
constexpr size_t kTrailer = 4 + kVersion.size();     // two line ends and the next record

/// Why a record is none.
struct Damage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Place behind the empty line that ends a head; npos while it is not there. `line` is where to go on looking.
size_t end_of_head(std::string_view text, size_t& line) {
  for (size_t found; (found = text.find('\n', line)) != std::string_view::npos; line = found + 1)
    if (found == line || (found == line + 1 && text[line] == '\r')) return found + 1;
  return std::string_view::npos;
}

/// Where `WARC/1.0` stands at the begin of a line; npos: nowhere. The first byte begins a line when `opens` says so.
size_t find_version(std::string_view text, bool opens) {
  for (size_t at = 0; (at = text.find(kVersion, at)) != std::string_view::npos; at += kVersion.size()) {
    const std::string_view line = text.substr(at, kVersionLine);
    if (line.size() < kVersionLine - 1 || !is_digit(line[5]) || line[6] != '.' || !is_digit(line[7])) continue;
    if (line[8] != '\r' && line[8] != '\n') continue;
    if (at == 0 ? opens : text[at - 1] == '\n') return at;
  }
  return std::string_view::npos;
}

}  // namespace

WarcReader::WarcReader(std::filesystem::path path, ByteSource::Coding coding, uint64_t max_record_bytes)
    : source_(std::move(path), coding),
      max_record_bytes_(max_record_bytes),
      is_plain_(coding == ByteSource::Coding::plain) {}

/// Appends to rest_ what the source has next. Throws Damage, and nothing is left of the member then.
WarcReader::More WarcReader::pull() {
  if (!rest_.empty() && !source_.at_member_end()) {  // the source's block goes, and buffer_ is to grow
    const size_t read = is_buffered_ ? buffer_.size() - rest_.size() : 0;
    if (!is_buffered_) buffer_.assign(rest_);
    if (read > buffer_.size() / 2) buffer_.erase(0, read);  // moving what is left costs less than what was read
    is_buffered_ = true;
    rest_ = std::string_view(buffer_).substr(buffer_.size() - rest_.size());
  }
  std::string_view bytes;
  switch (source_.next(bytes)) {
    case MemberSource::Event::end:
      return More::end;
    case MemberSource::Event::member_end:
      opens_member_ = true;
      return More::member_end;
    case MemberSource::Event::damaged:
      passed_over_ += rest_.size();
      rest_ = {};
      border_ = kNone;
      opens_member_ = true;
      throw Damage(source_.damage());
    case MemberSource::Event::bytes:
      break;
  }
  if (rest_.empty()) offset_ = source_.offset();
  if (opens_member_) {
    border_ = rest_.size();
    border_offset_ = source_.offset();
    opens_member_ = false;
  }
  const size_t left = rest_.size();
  is_buffered_ = left > 0;
  if (is_buffered_) buffer_.append(bytes);
  rest_ = is_buffered_ ? std::string_view(buffer_).substr(buffer_.size() - bytes.size() - left) : bytes;
  return More::bytes;
}

void WarcReader::drop(size_t bytes) {
  rest_.remove_prefix(bytes);
  if (is_plain_) offset_ += bytes;
  if (border_ == kNone) return;
  if (border_ <= bytes) offset_ = is_plain_ ? offset_ : border_offset_;
  border_ = border_ < bytes ? kNone : border_ - bytes;
}

void WarcReader::end_of_file() {
  passed_over_ += rest_.size();
  drop(rest_.size());
  throw Damage("cut short: the file ends inside the record");
}

WarcReader::Got WarcReader::next(WarcRecord& record) {
  bool is_begun = false;
  try {
    drop(delivered_);
    delivered_ = 0;
    skip_oversized();
    if (!(is_searching_ ? search() : find_record())) return Got::end;
    record = {.number = ++number_, .offset = offset_};
    is_begun = true;
    if (!rest_.starts_with(kVersion)) throw Damage("no record begins there");
    read_head(record);
    read_block(record);
    delivered_ = record.block.size();
    return Got::record;
  } catch (const Damage& damage) {
    if (!is_begun) record = {.number = ++number_, .offset = source_.offset()};
    damage_ = damage.what();
    is_searching_ = true;
    return Got::damaged;
  }
}

/// At the first byte behind line ends; false at the end of the file.
bool WarcReader::find_record() {
  for (;;) {
    drop(std::min(rest_.find_first_not_of("\r\n"), rest_.size()));
    if (rest_.size() >= kVersion.size()) return true;
    const size_t before = rest_.size();
    if (pull() == More::end) return before > 0;
  }
}

/// Behind damage: at the next line that opens a record; false at the end of the file.
bool WarcReader::search() {
  for (;;) {
    const bool opens = border_ == 0;
    size_t found = find_version(rest_, opens);
    if (found == kNone && border_ != kNone && border_ > 0) {  // a member's first byte begins a line
      const size_t behind = find_version(rest_.substr(border_), true);
      if (behind != kNone) found = border_ + behind;
    }
    if (found != kNone) {
      passed_over_ += found;
      drop(found);
      is_searching_ = false;
      return true;
    }
    const size_t keep = std::min(rest_.size(), kVersionLine);  // and the line end before
    if (border_ == kNone || rest_.size() - border_ > keep) {
      passed_over_ += rest_.size() - keep;
      drop(rest_.size() - keep);
    }
    More more = pull();
    if (more == More::end) {
      passed_over_ += rest_.size();
      drop(rest_.size());
      return false;
    }
  }
}

void WarcReader::skip_oversized() {
  while (to_skip_ > 0) {
    const size_t now = static_cast<size_t>(std::min<uint64_t>(to_skip_, rest_.size()));
    drop(now);
    to_skip_ -= now;
    if (to_skip_ == 0) return;
    if (pull() == More::end) {
      to_skip_ = 0;
      end_of_file();
    }
  }
}

void WarcReader::read_head(WarcRecord& record) {
  size_t line = 0, end;
  while ((end = end_of_head(rest_, line)) == kNone) {
    if (rest_.size() > kMaxHead) {
      drop(kVersion.size());
      throw Damage(fmt::format("its head is longer than {} bytes", kMaxHead));
    }
    if (pull() == More::end) end_of_file();
  }
  head_.assign(rest_.substr(0, end));
  drop(end);
  record.headers = HeaderLines(std::string_view(head_).substr(head_.find('\n') + 1));
  const std::string_view length = record.headers.find("Content-Length");
  const auto [stop, error] = std::from_chars(length.data(), length.data() + length.size(), record.length);
  if (length.empty() || error != std::errc() || stop != length.data() + length.size())
    throw Damage(fmt::format("Content-Length: got '{}', expected a number of bytes", printable(length.substr(0, 40))));
}

void WarcReader::read_block(WarcRecord& record) {
  record.is_oversized = record.length > max_record_bytes_;
  const size_t wanted =
      static_cast<size_t>(std::min(record.length, record.is_oversized ? uint64_t{kOversizedBlock} : record.length));
  for (;;) {
    if (border_ != kNone && border_ > 0 && border_ < wanted && rest_.substr(border_).starts_with(kVersion)) {
      const size_t there = border_;
      drop(there);
      throw Damage(fmt::format("Content-Length is {}, but its gzip member or zstd frame ends after {} bytes",
                               record.length, there));
    }
    if (rest_.size() >= wanted) break;
    if (pull() == More::end) end_of_file();
  }
  record.block = rest_.substr(0, wanted);
  if (record.is_oversized)
    to_skip_ = record.length - wanted;
  else
    check_end(record);
  record.block = rest_.substr(0, wanted);  // reading on may have moved it
}

/// Behind the block stand two line ends (or fewer, or more) and a record, or the member or the file ends.
void WarcReader::check_end(const WarcRecord& record) {
  const size_t length = static_cast<size_t>(record.length);
  while (rest_.size() < length + kTrailer && pull() == More::bytes) {
  }
  std::string_view behind = rest_.substr(length);
  if (behind.starts_with("\r\n\r\n")) return;
  behind.remove_prefix(std::min(behind.find_first_not_of("\r\n"), behind.size()));
  if (behind.substr(0, kVersion.size()) == kVersion.substr(0, behind.size())) return;
  if (border_ != kNone && border_ >= length && border_ <= rest_.size() - behind.size()) return;  // not of this record
  const size_t inside = find_version(rest_.substr(0, length), false);
  drop(inside == kNone ? length : inside);
  if (inside != kNone) border_ = 0;  // it begins a line
  throw Damage(inside == kNone ? fmt::format("Content-Length is {}, but the record goes on behind that", record.length)
                               : fmt::format("Content-Length is {}, but another record begins after {} bytes",
                                             record.length, inside));
}

}  // namespace coppice
