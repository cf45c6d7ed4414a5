// Records of one size in a file of their own: what the passes of a group step leave for one another. Whatever is read
// of it has been checked, a part of the file as well as all of it:
//   header    u64 "coppice\1", u32 bytes of a record, u32 records of a block, u64 owner
//   records   in blocks, the last may be shorter
//   table     of each block: u64 XXH3-64 of its bytes, u64 the first word of its first record
//   end       u64 number of records, u64 XXH3-64 of header, table and number
// The owner is a hash of whatever decided the records: those of other options are not mistaken for ours.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/byte_sink.h"

namespace coppice {

/// Appears under its name with commit().
class RecordWriter {
 public:
  RecordWriter(std::filesystem::path path, uint32_t record_bytes, uint64_t owner, uint32_t block_records = 0);
  void write(const void* records, uint64_t count);
  uint64_t count() const { return count_; }
  void commit();

 private:
  uint64_t write_blocks(std::string_view bytes);
  void note_block(std::string_view block);

  ByteSink sink_;
  std::string header_;
  uint64_t record_bytes_, block_bytes_, count_ = 0;
  std::string waiting_;  // bytes that are not in the file yet: too few to be worth a call
  std::vector<uint64_t> table_;
};

/// UserError::bad_file, from any call, for a file that is cut, damaged, of another owner or no such file at all.
class RecordReader {
 public:
  RecordReader(std::filesystem::path path, uint32_t record_bytes, uint64_t owner);
  ~RecordReader();
  RecordReader(RecordReader&& other) noexcept;
  RecordReader(const RecordReader&) = delete;
  RecordReader& operator=(const RecordReader&) = delete;

  uint64_t count() const { return count_; }
  uint64_t hash() const { return hash_; }  // of all that it holds
  void read(uint64_t first, uint64_t count, void* records);
  /// Of records that are sorted by their first word, a u64: the place of the first one whose word is not less.
  uint64_t lower_bound(uint64_t word);
  const std::filesystem::path& path() const { return path_; }
  [[noreturn]] void damaged(const std::string& what) const;

 private:
  uint64_t records_of(uint64_t block) const;
  void read_block(uint64_t number, char* out) const;
  std::string_view block(uint64_t number);
  void read_at(uint64_t offset, uint64_t bytes, char* out) const;

  std::filesystem::path path_;
  int descriptor_;
  uint64_t record_bytes_, block_records_ = 0, count_ = 0, hash_ = 0;
  std::vector<uint64_t> table_;
  std::string block_;
  uint64_t block_number_ = ~uint64_t{0};  // of the block that block_ holds
};

}  // namespace coppice
