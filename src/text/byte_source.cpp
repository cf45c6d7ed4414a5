// Decompression with limits. Ratios are counted over the whole file, on bytes the decoder has consumed, so that
// concatenated frames and members are allowed and a bomb stops after one MiB.
#include "src/text/byte_source.h"

#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "src/base/errors.h"
#include "src/base/input_file.h"

namespace coppice {

namespace {
constexpr size_t kBlock = size_t{1} << 18;
constexpr uint64_t kFreeBytes = uint64_t{1} << 20;  // a first MiB of any ratio
constexpr uint64_t kMaxRatio = 1000;
constexpr int kMaxZstdWindowLog = 27;
}  // namespace

struct ByteSource::State {
  std::filesystem::path path;
  Coding coding;
  Ratio ratio = Ratio::limited;
  int descriptor = -1;
  std::vector<char> input, output;
  size_t input_begin = 0, input_end = 0;
  bool file_ended = false;
  bool inside_frame = false;  // the end of the file would be a truncation
  uint64_t read = 0, consumed = 0, produced = 0;
  ZSTD_DCtx* zstd = nullptr;
  z_stream gzip{};
  bool gzip_open = false;

  [[noreturn]] void fail(const std::string& message) const { throw UserError::bad_file(path.string(), message); }

  void fill_input() {
    input_begin = input_end = 0;
    for (;;) {
      const ssize_t got = ::read(descriptor, input.data(), input.size());
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_unreadable(path, "cannot be read", errno);
      read += static_cast<uint64_t>(got);
      input_end = static_cast<size_t>(got);
      file_ended = got == 0;
      return;
    }
  }

  void check_ratio() const {
    if (ratio == Ratio::limited && produced > kFreeBytes && produced / kMaxRatio > consumed)
      fail(
          fmt::format("decompresses to more than {} times its size ({} bytes from {}): refused as a decompression bomb",
                      kMaxRatio, produced, consumed));
  }

  size_t step_zstd() {
    ZSTD_inBuffer in{input.data() + input_begin, input_end - input_begin, 0};
    ZSTD_outBuffer out{output.data(), output.size(), 0};
    const size_t left = ZSTD_decompressStream(zstd, &out, &in);
    if (ZSTD_isError(left))
      fail(fmt::format("damaged zstd data after {} decompressed bytes: {}", produced, ZSTD_getErrorName(left)));
    inside_frame = left != 0;
    input_begin += in.pos;
    consumed += in.pos;
    return out.pos;
  }

  size_t step_gzip() {
    gzip.next_in = reinterpret_cast<Bytef*>(input.data() + input_begin);
    gzip.avail_in = static_cast<uInt>(input_end - input_begin);
    gzip.next_out = reinterpret_cast<Bytef*>(output.data());
    gzip.avail_out = static_cast<uInt>(output.size());
    const uInt before = gzip.avail_in;
    if (before > 0 && !inside_frame) {  // the next member of a concatenated file
      inflateReset(&gzip);
      inside_frame = true;
    }
    const int result = inflate(&gzip, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      fail(fmt::format("damaged gzip data after {} decompressed bytes: {}", produced,
                       gzip.msg != nullptr ? gzip.msg : "unknown error"));
    if (result == Z_STREAM_END) inside_frame = false;
    input_begin += before - gzip.avail_in;
    consumed += before - gzip.avail_in;
    return output.size() - gzip.avail_out;
  }
};

ByteSource::ByteSource(std::filesystem::path path, Coding coding, Ratio ratio) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = std::move(path);
  s.coding = coding;
  s.ratio = ratio;
  s.descriptor = open_for_reading(s.path);
  s.input.resize(kBlock);
  if (coding != Coding::plain) s.output.resize(kBlock);
  if (coding == Coding::zstd) {
    s.zstd = ZSTD_createDCtx();
    COPPICE_CHECK(
        s.zstd != nullptr && !ZSTD_isError(ZSTD_DCtx_setParameter(s.zstd, ZSTD_d_windowLogMax, kMaxZstdWindowLog)),
        "zstd context");
  } else if (coding == Coding::gzip) {
    COPPICE_CHECK(inflateInit2(&s.gzip, 15 + 16) == Z_OK, "zlib context");
    s.gzip_open = true;
  }
}

ByteSource::~ByteSource() {
  if (state_->zstd != nullptr) ZSTD_freeDCtx(state_->zstd);
  if (state_->gzip_open) inflateEnd(&state_->gzip);
  if (state_->descriptor >= 0) ::close(state_->descriptor);
}

uint64_t ByteSource::bytes_read() const { return state_->read; }

std::string_view ByteSource::next() {
  State& s = *state_;
  if (s.coding == Coding::plain) {
    s.fill_input();
    return {s.input.data(), s.input_end};
  }
  for (;;) {
    if (s.input_begin == s.input_end && !s.file_ended) s.fill_input();
    if (s.file_ended && !s.inside_frame) return {};
    const uint64_t before = s.consumed;
    const size_t got = s.coding == Coding::zstd ? s.step_zstd() : s.step_gzip();
    s.produced += got;
    s.check_ratio();
    if (got > 0) return {s.output.data(), got};
    if (s.file_ended && s.inside_frame && s.consumed == before)
      s.fail(fmt::format("truncated: it ends inside its data, after {} decompressed bytes", s.produced));
  }
}

LineReader::LineReader(std::filesystem::path path, ByteSource::Coding coding, uint64_t max_line_bytes,
                       LongLines long_lines)
    : path_(path), source_(std::move(path), coding), max_line_bytes_(max_line_bytes), long_lines_(long_lines) {}

bool LineReader::next(std::string_view& line) {
  too_long_ = false;
  for (;;) {
    const char* const found =
        static_cast<const char*>(std::memchr(buffer_.data() + searched_, '\n', buffer_.size() - searched_));
    const bool whole = found != nullptr;
    const size_t end = whole ? static_cast<size_t>(found - buffer_.data()) : buffer_.size();
    if (end - begin_ > max_line_bytes_) {
      if (long_lines_ == LongLines::refuse)
        throw UserError::bad_file(path_.string(),
                                  fmt::format("line {} is longer than {} bytes", line_number_ + 1, max_line_bytes_));
      too_long_ = true;
    }
    if (too_long_) begin_ = end;  // what has come of it is dropped
    if (!whole && !at_end_) {
      buffer_.erase(0, begin_);
      begin_ = 0;
      searched_ = buffer_.size();
      const std::string_view block = source_.next();
      if (block.empty()) {
        at_end_ = true;
      } else {
        if (buffer_.capacity() < buffer_.size() + block.size() + kPadding)
          buffer_.reserve(2 * (buffer_.size() + block.size()) + kPadding);
        buffer_.append(block);
      }
      continue;
    }
    if (!whole && begin_ == buffer_.size() && !too_long_) return false;
    buffer_.reserve(buffer_.size() + kPadding);  // no line starts in the padding, it only has to be readable
    line = std::string_view(buffer_).substr(begin_, end - begin_);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    begin_ = whole ? end + 1 : end;
    searched_ = begin_;
    ++line_number_;
    return true;
  }
}

}  // namespace coppice
