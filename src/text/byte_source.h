// Bytes of a plain, .gz or .zst file as a stream of blocks in bounded memory, and lines cut from it.
// Defences: only regular files, so that a FIFO hangs nothing; a decompression ratio above 1000 after the first MiB,
// zstd windows above 128 MiB and lines above 64 MB are refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace coppice {

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";  // of UTF-8: says nothing, and is passed over

class ByteSource {
 public:
  enum class Coding { plain, gzip, zstd };
  enum class Ratio { limited, any };  // any: for files of our own, whatever repeats in them
  ByteSource(std::filesystem::path path, Coding coding, Ratio ratio = Ratio::limited);
  ~ByteSource();
  /// The next block, empty at the end; valid until the next call. UserError::bad_file on damage, truncation or a bomb.
  std::string_view next();
  /// Of the file as it lies on disk, so far.
  uint64_t bytes_read() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Lines without their '\n' (and without '\r' before it).
class LineReader {
 public:
  enum class LongLines { refuse, pass_over };
  LineReader(std::filesystem::path path, ByteSource::Coding coding, uint64_t max_line_bytes,
             LongLines long_lines = LongLines::refuse);
  /// False at the end. The line is valid until the next call and is followed by at least `padding` readable bytes.
  bool next(std::string_view& line);
  uint64_t line_number() const { return line_number_; }
  bool too_long() const { return too_long_; }  // the line was passed over and is empty
  uint64_t bytes_read() const { return source_.bytes_read(); }

  static constexpr size_t kPadding = 64;  // simdjson reads whole vectors

 private:
  std::filesystem::path path_;
  ByteSource source_;
  uint64_t max_line_bytes_;
  LongLines long_lines_;
  uint64_t line_number_ = 0;
  bool too_long_ = false;
  std::string buffer_;  // unread bytes from begin_ on
  size_t begin_ = 0;
  size_t searched_ = 0;  // no newline in [begin_, searched_)
  bool at_end_ = false;
};

}  // namespace coppice
