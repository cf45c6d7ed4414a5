#include "src/corpus/run/value_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <system_error>
#include <utility>

#include "src/base/errors.h"
#include "src/base/hdf5.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSpillBytes = size_t{4} << 20;
constexpr uint64_t kChunkRows = uint64_t{1} << 16;
std::mutex hdf5_guard;  // the library is not made for threads

template <class Number>
void append(std::string& bytes, const Number* numbers, size_t count) {
  bytes.append(reinterpret_cast<const char*>(numbers), count * sizeof(Number));
}

/// Rows of one pass beside those of the first.
struct Columns {
  ValueRows& rows;
  ValueRow row = {};  // the next one
  bool is_there = false;
  std::vector<std::vector<float>> values = {};  // [columns, rows of the block]
};

class ValueWriter {
 public:
  ValueWriter(const fs::path& path, uint32_t file, std::span<ValueRows> passes)
      : writer_(path, 1), file_(file), first_(passes.front()) {
    for (ValueRows& rows : passes) {
      Columns& columns = passes_.emplace_back(Columns{.rows = rows});
      columns.is_there = rows.next(columns.row);
      columns.values.resize(rows.columns().size());
    }
    make("/document", Hdf5Type::u64);
    make("/id", Hdf5Type::u64);
    for (const ValueRows& rows : passes)
      for (const std::string& column : rows.columns()) make("/" + column, Hdf5Type::f32);
  }

  void write(const std::string& made_of, const std::string& name) {
    writer_.set_attribute("/", "format", "coppice.values");
    writer_.set_attribute("/", "version", uint64_t{1});
    writer_.set_attribute("/", "made_of", made_of);
    writer_.set_attribute("/", "file", name);
    for (uint64_t done = 0; done < first_.size(); done += kChunkRows)
      write_block(done, std::min(kChunkRows, first_.size() - done));
    for (const Columns& columns : passes_) COPPICE_CHECK(!columns.is_there, "a later pass saw other documents");
    writer_.close();
  }

 private:
  void make(const std::string& dataset, Hdf5Type type) {
    writer_.make_chunked(dataset, type, {first_.size()}, kChunkRows, Hdf5Writer::Packing::deflate);
  }

  void write_block(uint64_t begin, uint64_t count) {
    for (Columns& columns : passes_)
      for (std::vector<float>& values : columns.values) values.assign(count, std::numeric_limits<float>::quiet_NaN());
    std::vector<uint64_t> documents, ids;
    for (uint64_t place = 0; place < count; ++place) {
      COPPICE_CHECK(passes_.front().is_there, "fewer rows than were counted");
      const uint32_t record = passes_.front().row.record;
      documents.push_back(uint64_t{file_} << 32 | record);
      ids.push_back(passes_.front().row.id);
      for (Columns& columns : passes_) take(columns, record, place);
    }
    writer_.write_rows("/document", Hdf5Type::u64, begin, count, documents.data());
    writer_.write_rows("/id", Hdf5Type::u64, begin, count, ids.data());
    for (const Columns& columns : passes_)
      for (size_t i = 0; i < columns.values.size(); ++i)
        writer_.write_rows("/" + columns.rows.columns()[i], Hdf5Type::f32, begin, count, columns.values[i].data());
  }

  static void take(Columns& columns, uint32_t record, uint64_t place) {
    if (!columns.is_there || columns.row.record != record) return;
    for (size_t i = 0; i < columns.values.size(); ++i) columns.values[i][place] = columns.row.values[i];
    columns.is_there = columns.rows.next(columns.row);
  }

  Hdf5Writer writer_;
  uint32_t file_;
  const ValueRows& first_;
  std::vector<Columns> passes_;
};

}  // namespace

ValueRows::ValueRows(fs::path path, std::vector<std::string> columns)
    : path_(std::move(path)), columns_(std::move(columns)) {}

ValueRows::~ValueRows() {
  if (file_ == nullptr) return;
  std::error_code ignored;
  fs::remove(file_->path(), ignored);
}

ValueRows ValueRows::load(fs::path path, std::vector<std::string> columns) {
  ValueRows rows(std::move(path), std::move(columns));
  rows.source_ = std::make_unique<ByteSource>(rows.path_, ByteSource::Coding::plain);
  const uint64_t bytes = fs::file_size(rows.path_);
  if (bytes % rows.row_bytes() != 0)
    throw UserError::bad_file(rows.path_.string(), fmt::format("has {} bytes, expected whole rows of {} values", bytes,
                                                               rows.columns_.size()));
  rows.size_ = bytes / rows.row_bytes();
  return rows;
}

void ValueRows::add(uint32_t record, uint64_t id, std::span<const float> values) {
  append(buffer_, &record, 1);
  append(buffer_, &id, 1);
  append(buffer_, values.data(), values.size());
  ++size_;
  if (buffer_.size() >= kSpillBytes) spill();
}

void ValueRows::spill() {
  if (file_ == nullptr) file_ = std::make_unique<OutputFile>(temporary_path(path_), OutputFile::Mode::create);
  file_->write(buffer_);
  buffer_.clear();
}

void ValueRows::save() {
  spill();
  file_->sync();
  file_->close();
  commit_rename(file_->path(), path_);
  file_.reset();
}

bool ValueRows::next(ValueRow& row) {
  if (source_ == nullptr && file_ != nullptr) {
    spill();
    source_ = std::make_unique<ByteSource>(file_->path(), ByteSource::Coding::plain);
  }
  while (buffer_.size() - at_ < row_bytes()) {
    const std::string_view block = source_ == nullptr ? std::string_view() : source_->next();
    if (block.empty()) return false;
    buffer_.erase(0, std::exchange(at_, 0));
    buffer_.append(block);
  }
  const auto take = [&](auto* numbers, size_t count) {
    if (count > 0) std::memcpy(numbers, buffer_.data() + at_, count * sizeof *numbers);
    at_ += count * sizeof *numbers;
  };
  take(&row.record, 1);
  take(&row.id, 1);
  row.values.resize(columns_.size());
  take(row.values.data(), columns_.size());
  return true;
}

void write_values(const fs::path& path, const std::string& made_of, const std::string& name, uint32_t file,
                  std::span<ValueRows> passes) {
  const fs::path temporary = temporary_path(path);
  try {
    {
      const std::lock_guard lock(hdf5_guard);
      ValueWriter(temporary, file, passes).write(made_of, name);
    }
    OutputFile written(temporary, OutputFile::Mode::existing);
    written.sync();
    written.close();
    commit_rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

}  // namespace coppice
