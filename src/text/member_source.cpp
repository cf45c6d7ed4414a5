// Small gzip members are unpacked whole by libdeflate, at twice the pace of zlib; what is larger, cut or damaged goes
// through zlib, which says how far it came. Every byte is looked at a fixed number of times, whatever the file holds:
// behind damage the search goes on where the decoder stopped, never from where it began.
#include "src/text/member_source.h"

#include <fmt/format.h>
#include <libdeflate.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/base/errors.h"
#include "src/base/input_file.h"

namespace coppice {

namespace {

using namespace std::string_view_literals;

constexpr size_t kAhead = size_t{1} << 20;  // input at hand where a member begins: what libdeflate may look at
constexpr size_t kInput = 2 * kAhead;
constexpr size_t kWhole = size_t{8} << 20;  // the largest member that is unpacked at once
constexpr size_t kBlock = size_t{1} << 18;  // of larger ones
constexpr uint64_t kFreeBytes = uint64_t{1} << 20, kMaxRatio = 1000;
constexpr int kMaxZstdWindowLog = 27;
constexpr std::string_view kGzip = "\x1F\x8B\x08"sv, kZstd = "\x28\xB5\x2F\xFD"sv;
constexpr std::string_view kDictionaryFrame = "\x5D\x2A\x4D\x18"sv;  // before the first frame of a .warc.zst
constexpr size_t kMaxDictionary = kAhead - 8;                        // those that exist have up to 112 kB

}  // namespace

struct MemberSource::State {
  std::filesystem::path path;
  ByteSource::Coding coding;
  int descriptor = -1;
  // Not filled with zeros: short files touch little of them.
  const std::unique_ptr<char[]> input = std::make_unique_for_overwrite<char[]>(kInput);
  std::unique_ptr<char[]> output;
  size_t begin = 0, end = 0;  // of what is not read yet, in input
  bool file_ended = false, inside = false, ended_member = false, searching = false;
  uint64_t read = 0, produced = 0, member_offset = 0, passed_over = 0;
  std::string damage, dictionary;
  libdeflate_decompressor* whole = nullptr;
  z_stream gzip{};
  bool gzip_open = false;
  ZSTD_DCtx* zstd = nullptr;

  ~State() {
    if (whole != nullptr) libdeflate_free_decompressor(whole);
    if (gzip_open) inflateEnd(&gzip);
    if (zstd != nullptr) ZSTD_freeDCtx(zstd);
    if (descriptor >= 0) ::close(descriptor);
  }

  std::string_view ahead() const { return {input.get() + begin, end - begin}; }
  uint64_t place() const { return read - (end - begin); }

  /// Reads until `wanted` bytes lie ahead or the file ends.
  void fill(size_t wanted) {
    if (end - begin >= wanted || file_ended) return;
    std::memmove(input.get(), input.get() + begin, end - begin);
    end -= begin;
    begin = 0;
    while (end < wanted && !file_ended) {
      const ssize_t got = ::read(descriptor, input.get() + end, kInput - end);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw_unreadable(path, "cannot be read", errno);
      file_ended = got == 0;
      end += static_cast<size_t>(got);
      read += static_cast<uint64_t>(got);
    }
  }

  std::string_view take(size_t consumed, size_t got) {
    begin += consumed;
    produced += got;
    if (produced > kFreeBytes && produced / kMaxRatio > place())
      throw UserError::bad_file(
          path.string(),
          fmt::format("decompresses to more than {} times its size ({} bytes from {}): refused as a decompression bomb",
                      kMaxRatio, produced, place()));
    return {output.get(), got};
  }

  Event fail(std::string message) {
    damage = std::move(message);
    inside = false;
    searching = true;
    return Event::damaged;
  }

  std::string_view magic() const { return coding == ByteSource::Coding::gzip ? kGzip : kZstd; }

  /// Of zstd: a table of seek points and the like, which its decoder passes over.
  bool is_skippable_frame() const {
    return coding == ByteSource::Coding::zstd && ahead().size() >= 4 &&
           ahead().substr(1, 3) == kDictionaryFrame.substr(1) && (ahead()[0] & 0xF0) == 0x50;
  }

  /// Passes over bytes up to the next sign of a member; false at the end of the file.
  bool find_member() {
    for (;;) {
      fill(kAhead);
      const size_t found = ahead().find(magic());
      const size_t skipped = found != std::string_view::npos ? found
                             : file_ended                    ? ahead().size()
                                                             : ahead().size() - (magic().size() - 1);
      begin += skipped;
      passed_over += skipped;
      if (found != std::string_view::npos) return true;
      if (file_ended) return false;
    }
  }

  /// At the sign of a member, or at what should be one.
  Event open_member(std::string_view& bytes) {
    member_offset = place();
    if (!ahead().starts_with(magic()) && !is_skippable_frame()) {
      if (ahead().find_first_not_of('\0') == std::string_view::npos && file_ended) {  // padding of tapes and discs
        begin = end;
        return Event::end;
      }
      return fail(
          fmt::format("what stands there is no {}", coding == ByteSource::Coding::gzip ? "gzip member" : "zstd frame"));
    }
    if (coding == ByteSource::Coding::gzip) {
      size_t consumed = 0, got = 0;
      if (libdeflate_gzip_decompress_ex(whole, ahead().data(), ahead().size(), output.get(), kWhole, &consumed, &got) ==
          LIBDEFLATE_SUCCESS) {
        bytes = take(consumed, got);
        ended_member = true;
        return got > 0 ? Event::bytes : close_member();
      }
      inflateReset(&gzip);
    } else {
      ZSTD_DCtx_reset(zstd, ZSTD_reset_session_only);
    }
    inside = true;
    return go_on(bytes);
  }

  Event close_member() {
    ended_member = inside = false;
    return Event::member_end;
  }

  Event go_on(std::string_view& bytes) {
    for (;;) {
      fill(1);
      if (ahead().empty())
        return fail(fmt::format("cut short: the file ends inside its {} data",
                                coding == ByteSource::Coding::gzip ? "gzip" : "zstd"));
      bool ended = false;
      bytes = coding == ByteSource::Coding::gzip ? step_gzip(ended) : step_zstd(ended);
      if (!inside) return Event::damaged;
      ended_member = ended;
      if (!bytes.empty()) return Event::bytes;
      if (ended) return close_member();
    }
  }

  std::string_view step_gzip(bool& ended) {
    gzip.next_in = reinterpret_cast<Bytef*>(input.get() + begin);
    gzip.avail_in = static_cast<uInt>(end - begin);
    gzip.next_out = reinterpret_cast<Bytef*>(output.get());
    gzip.avail_out = static_cast<uInt>(kBlock);
    const int result = inflate(&gzip, Z_NO_FLUSH);
    const size_t consumed = ahead().size() - gzip.avail_in;
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      begin += consumed;
      fail(fmt::format("damaged gzip data: {}", gzip.msg != nullptr ? gzip.msg : "unknown error"));
      return {};
    }
    ended = result == Z_STREAM_END;
    return take(consumed, kBlock - gzip.avail_out);
  }

  std::string_view step_zstd(bool& ended) {
    ZSTD_inBuffer in{input.get() + begin, end - begin, 0};
    ZSTD_outBuffer out{output.get(), kBlock, 0};
    const size_t left = ZSTD_decompressStream(zstd, &out, &in);
    if (ZSTD_isError(left)) {
      begin += std::max<size_t>(in.pos, 1);  // it may say that it took nothing
      fail(fmt::format("damaged zstd data: {}", ZSTD_getErrorName(left)));
      return {};
    }
    ended = left == 0;
    return take(in.pos, out.pos);
  }

  /// A .warc.zst may open with a frame that others pass over: the dictionary of all that follow, plain or as a frame.
  void read_dictionary() {
    fill(kAhead);
    if (!ahead().starts_with(kDictionaryFrame) || ahead().size() < 8) return;
    uint32_t bytes = 0;
    std::memcpy(&bytes, ahead().data() + 4, sizeof bytes);  // little endian, as everything here
    if (bytes > kMaxDictionary || ahead().size() - 8 < bytes)
      throw UserError::bad_file(path.string(),
                                fmt::format("its zstd dictionary of {} bytes is cut short or too large", bytes));
    dictionary = ahead().substr(8, bytes);
    begin += 8 + bytes;
    if (dictionary.starts_with(kZstd)) {
      std::string plain(kMaxDictionary, '\0');
      const size_t got = ZSTD_decompress(plain.data(), plain.size(), dictionary.data(), dictionary.size());
      if (ZSTD_isError(got))
        throw UserError::bad_file(path.string(),
                                  fmt::format("its zstd dictionary is damaged: {}", ZSTD_getErrorName(got)));
      plain.resize(got);
      dictionary = std::move(plain);
    }
    if (ZSTD_isError(ZSTD_DCtx_loadDictionary(zstd, dictionary.data(), dictionary.size())))
      throw UserError::bad_file(path.string(), "its zstd dictionary is damaged");
  }
};

MemberSource::MemberSource(std::filesystem::path path, ByteSource::Coding coding) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.path = std::move(path);
  s.coding = coding;
  s.descriptor = open_for_reading(s.path);
  if (coding == ByteSource::Coding::gzip) {
    s.output = std::make_unique_for_overwrite<char[]>(kWhole);
    s.whole = libdeflate_alloc_decompressor();
    s.gzip_open = inflateInit2(&s.gzip, 15 + 16) == Z_OK;
    COPPICE_CHECK(s.whole != nullptr && s.gzip_open, "gzip decoder");
  } else if (coding == ByteSource::Coding::zstd) {
    s.output = std::make_unique_for_overwrite<char[]>(kBlock);
    s.zstd = ZSTD_createDCtx();
    COPPICE_CHECK(
        s.zstd != nullptr && !ZSTD_isError(ZSTD_DCtx_setParameter(s.zstd, ZSTD_d_windowLogMax, kMaxZstdWindowLog)),
        "zstd context");
    s.read_dictionary();
  }
}

MemberSource::~MemberSource() = default;

MemberSource::Event MemberSource::next(std::string_view& bytes) {
  State& s = *state_;
  bytes = {};
  if (s.coding == ByteSource::Coding::plain) {
    s.begin = s.end;
    s.member_offset = s.read;
    s.fill(1);
    bytes = s.ahead();
    return bytes.empty() ? Event::end : Event::bytes;
  }
  if (s.ended_member) return s.close_member();
  if (s.inside) return s.go_on(bytes);
  if (s.searching && !s.find_member()) return Event::end;
  s.searching = false;
  s.fill(kAhead);
  return s.ahead().empty() ? Event::end : s.open_member(bytes);
}

bool MemberSource::at_member_end() const { return state_->ended_member; }
const std::string& MemberSource::damage() const { return state_->damage; }
uint64_t MemberSource::offset() const { return state_->member_offset; }
uint64_t MemberSource::passed_over() const { return state_->passed_over; }
uint64_t MemberSource::bytes_read() const { return state_->place(); }

}  // namespace coppice
