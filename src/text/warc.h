// Records of a WARC file (ISO 28500, versions 0.17 to 1.1), plain, .gz or .zst: one gzip member or zstd frame a record,
// as crawlers write them, or the whole file packed at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "src/text/header_lines.h"
#include "src/text/member_source.h"

namespace coppice {

struct WarcRecord {
  uint64_t number = 0;  // from 1, damaged ones among them
  uint64_t offset = 0;  // in the file: of the record, or of the gzip member or zstd frame in which it begins
  HeaderLines headers;
  uint64_t length = 0;        // Content-Length
  std::string_view block;     // so many bytes; valid until the next call
  bool is_oversized = false;  // longer than the limit: `block` is its beginning, the rest is passed over
};

class WarcReader {
 public:
  enum class Got { record, damaged, end };
  WarcReader(std::filesystem::path path, ByteSource::Coding coding, uint64_t max_record_bytes = uint64_t{64} << 20);
  /// Behind damage it goes on with the next record that can be found: behind a gzip member, a zstd frame or a line end.
  /// `record` has number and offset of what was damaged then. UserError::bad_file as MemberSource.
  Got next(WarcRecord& record);
  const std::string& damage() const { return damage_; }                          // after Got::damaged
  uint64_t passed_over() const { return passed_over_ + source_.passed_over(); }  // bytes lost between records
  uint64_t bytes_read() const { return source_.bytes_read(); }

 private:
  enum class More { bytes, member_end, end };
  More pull();
  void drop(size_t bytes);
  bool find_record();
  bool search();
  void skip_oversized();
  void read_head(WarcRecord& record);
  void read_block(WarcRecord& record);
  void check_end(const WarcRecord& record);
  [[noreturn]] void end_of_file();

  MemberSource source_;
  uint64_t max_record_bytes_;
  std::string buffer_;                       // of what does not lie in one block of the source
  std::string_view rest_;                    // unread: the end of buffer_, or of the source's block
  bool is_buffered_ = false;                 // the former
  bool opens_member_ = true;                 // the next bytes of the source are the first of a member
  size_t border_ = kNone;                    // bytes of rest_ before those of the last member that began in it
  uint64_t offset_ = 0, border_offset_ = 0;  // in the file: as WarcRecord::offset, of rest_ and of its border
  bool is_plain_ = false;
  std::string head_;
  size_t delivered_ = 0;  // bytes of rest_ that the last record took
  uint64_t to_skip_ = 0;  // behind them, of an oversized record
  uint64_t number_ = 0, passed_over_ = 0;
  bool is_searching_ = false;  // behind damage
  std::string damage_;

  static constexpr size_t kNone = std::string_view::npos;
};

}  // namespace coppice
