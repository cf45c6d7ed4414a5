#include "src/corpus/dedup/record_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "src/base/errors.h"
#include "src/base/input_file.h"

namespace coppice {
namespace {

constexpr uint64_t kMagic = 0x01656369'70706f63;  // "coppice\1"
constexpr uint64_t kHeaderBytes = 24, kEndBytes = 16, kEntryBytes = 16;
constexpr uint64_t kBlockBytes = uint64_t{64} << 10;  // of a block, unless the writer says otherwise, and of a write

template <class Value>
void append(std::string& bytes, Value value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <class Value>
Value value_at(const char* bytes) {
  Value value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

uint64_t first_word(const char* record, uint64_t record_bytes) {
  uint64_t word = 0;
  std::memcpy(&word, record, std::min<uint64_t>(sizeof(word), record_bytes));
  return word;
}

uint64_t hash_of_frame(std::string_view header, const std::vector<uint64_t>& table, uint64_t count) {
  std::string frame(header);
  frame.append(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(uint64_t));
  append(frame, count);
  return XXH3_64bits(frame.data(), frame.size());
}

}  // namespace

RecordWriter::RecordWriter(std::filesystem::path path, uint32_t record_bytes, uint64_t owner, uint32_t block_records)
    : sink_(std::move(path), ByteSink::Coding::plain), record_bytes_(record_bytes) {
  COPPICE_CHECK(record_bytes > 0, "records without bytes");
  if (block_records == 0) block_records = std::max<uint32_t>(1, kBlockBytes / record_bytes);
  block_bytes_ = record_bytes_ * block_records;
  append(header_, kMagic);
  append(header_, record_bytes);
  append(header_, block_records);
  append(header_, owner);
  sink_.write(header_);
}

void RecordWriter::write(const void* records, uint64_t count) {
  std::string_view bytes(static_cast<const char*>(records), count * record_bytes_);
  count_ += count;
  if (waiting_.empty()) bytes.remove_prefix(write_blocks(bytes));  // from where they lie
  waiting_.append(bytes);
  if (const uint64_t done = write_blocks(waiting_); done > 0) waiting_.erase(0, done);
}

/// Writes whole blocks, as many as are worth a call, and returns their bytes.
uint64_t RecordWriter::write_blocks(std::string_view bytes) {
  if (bytes.size() < std::max(block_bytes_, kBlockBytes)) return 0;
  const uint64_t whole = bytes.size() - bytes.size() % block_bytes_;
  for (uint64_t at = 0; at < whole; at += block_bytes_) note_block(bytes.substr(at, block_bytes_));
  sink_.write(bytes.substr(0, whole));
  return whole;
}

void RecordWriter::note_block(std::string_view block) {
  table_.push_back(XXH3_64bits(block.data(), block.size()));
  table_.push_back(first_word(block.data(), record_bytes_));
}

void RecordWriter::commit() {
  for (uint64_t at = 0; at < waiting_.size(); at += block_bytes_)
    note_block(std::string_view(waiting_).substr(at, block_bytes_));
  sink_.write(waiting_);
  std::string end(reinterpret_cast<const char*>(table_.data()), table_.size() * sizeof(uint64_t));
  append(end, count_);
  append(end, hash_of_frame(header_, table_, count_));
  sink_.write(end);
  sink_.commit();
}

RecordReader::RecordReader(std::filesystem::path path, uint32_t record_bytes, uint64_t owner)
    : path_(std::move(path)), descriptor_(open_for_reading(path_)), record_bytes_(record_bytes) {
  struct stat facts = {};
  if (::fstat(descriptor_, &facts) != 0) throw_unreadable(path_, "fstat", errno);
  const auto size = static_cast<uint64_t>(facts.st_size);
  if (size < kHeaderBytes + kEndBytes) damaged(fmt::format("it has {} bytes", size));
  std::string header(kHeaderBytes, '\0'), end(kEndBytes, '\0');
  read_at(0, kHeaderBytes, header.data());
  read_at(size - kEndBytes, kEndBytes, end.data());
  if (value_at<uint64_t>(header.data()) != kMagic) damaged("it does not begin as one");
  count_ = value_at<uint64_t>(end.data());
  block_records_ = value_at<uint32_t>(header.data() + 12);
  const auto stored_bytes = value_at<uint32_t>(header.data() + 8);
  const uint64_t body = size - kHeaderBytes - kEndBytes;
  if (stored_bytes != record_bytes || block_records_ == 0 || count_ > body / record_bytes_)
    damaged(fmt::format("{} records of {} bytes, expected records of {}", count_, stored_bytes, record_bytes));
  const uint64_t blocks = (count_ + block_records_ - 1) / block_records_;
  if (body - count_ * record_bytes_ != blocks * kEntryBytes)
    damaged(fmt::format("its size does not fit to {} records", count_));
  table_.resize(2 * blocks);
  read_at(kHeaderBytes + count_ * record_bytes_, blocks * kEntryBytes, reinterpret_cast<char*>(table_.data()));
  hash_ = value_at<uint64_t>(end.data() + 8);
  if (hash_ != hash_of_frame(header, table_, count_)) damaged("its hash does not hold");
  if (value_at<uint64_t>(header.data() + 16) != owner)
    throw UserError::bad_file(path_.string(), "made with other options; remove its folder and run the step again");
}

RecordReader::RecordReader(RecordReader&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      record_bytes_(other.record_bytes_),
      block_records_(other.block_records_),
      count_(other.count_),
      hash_(other.hash_),
      table_(std::move(other.table_)),
      block_(std::move(other.block_)),
      block_number_(other.block_number_) {}

RecordReader::~RecordReader() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void RecordReader::damaged(const std::string& what) const {
  throw UserError::bad_file(path_.string(), "damaged records: " + what + "; remove its folder and run the step again");
}

void RecordReader::read_at(uint64_t offset, uint64_t bytes, char* out) const {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, out, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_unreadable(path_, "pread", errno);
    if (got == 0) damaged(fmt::format("it ends at {} bytes", offset));
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
    out += got;
  }
}

uint64_t RecordReader::records_of(uint64_t block) const {
  return std::min(block_records_, count_ - block * block_records_);
}

void RecordReader::read_block(uint64_t number, char* out) const {
  const uint64_t bytes = records_of(number) * record_bytes_;
  read_at(kHeaderBytes + number * block_records_ * record_bytes_, bytes, out);
  if (XXH3_64bits(out, bytes) != table_[2 * number]) damaged(fmt::format("the hash of block {} does not hold", number));
}

std::string_view RecordReader::block(uint64_t number) {
  if (number != block_number_) {
    block_number_ = ~uint64_t{0};
    block_.resize(records_of(number) * record_bytes_);
    read_block(number, block_.data());
    block_number_ = number;
  }
  return block_;
}

void RecordReader::read(uint64_t first, uint64_t count, void* records) {
  COPPICE_CHECK(first <= count_ && count <= count_ - first,
                fmt::format("records {} to {} of {}", first, first + count, count_));
  auto* out = static_cast<char*>(records);
  while (count > 0) {
    const uint64_t number = first / block_records_, inside = first % block_records_;
    const uint64_t part = std::min(count, records_of(number) - inside), bytes = part * record_bytes_;
    if (part == records_of(number) && number != block_number_)
      read_block(number, out);
    else
      std::memcpy(out, block(number).data() + inside * record_bytes_, bytes);
    out += bytes;
    first += part;
    count -= part;
  }
}

uint64_t RecordReader::lower_bound(uint64_t word) {
  uint64_t low = 0, high = table_.size() / 2;  // the first block that begins at `word` or behind it
  while (low < high) {
    const uint64_t middle = (low + high) / 2;
    if (table_[2 * middle + 1] < word) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return 0;
  const std::string_view before = block(low - 1);
  uint64_t place = 0, end = before.size() / record_bytes_;
  while (place < end) {
    const uint64_t middle = (place + end) / 2;
    if (first_word(before.data() + middle * record_bytes_, record_bytes_) < word) {
      place = middle + 1;
    } else {
      end = middle;
    }
  }
  return (low - 1) * block_records_ + place;
}

}  // namespace coppice
