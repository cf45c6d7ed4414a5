// What rules have measured of the documents of one file: rows while a pass goes on, columns at the end. Memory stays
// below a few megabytes whatever the file holds: rows that are more go to disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/base/files.h"
#include "src/text/byte_source.h"

namespace coppice {

/// A document's values in one pass.
struct ValueRow {
  uint32_t record = 0;  // its place among those of the source file; ascending
  uint64_t id = 0;      // document_hash() of its id
  std::vector<float> values;
};

/// Rows of one pass: columns().size() values a document, in the order of the documents.
class ValueRows {
 public:
  /// None yet; `path` is where they lie when they are saved.
  ValueRows(std::filesystem::path path, std::vector<std::string> columns);
  /// Those that are saved there. UserError::bad_file for a file that does not hold whole rows of these columns.
  static ValueRows load(std::filesystem::path path, std::vector<std::string> columns);
  ~ValueRows();
  ValueRows(ValueRows&&) noexcept = default;

  const std::vector<std::string>& columns() const { return columns_; }  // "<step>/<rule>"
  uint64_t size() const { return size_; }
  void add(uint32_t record, uint64_t id, std::span<const float> values);
  /// Behind the last row: they appear under their path.
  void save();

  /// From the first row to the last; false behind it. Rows are not added any more then.
  bool next(ValueRow& row);

 private:
  size_t row_bytes() const { return sizeof(uint32_t) + sizeof(uint64_t) + columns_.size() * sizeof(float); }
  void spill();

  std::filesystem::path path_;
  std::vector<std::string> columns_;
  uint64_t size_ = 0;
  std::string buffer_;                  // rows that are not in the file, or have been read from it
  size_t at_ = 0;                       // in buffer_, of the row to come
  std::unique_ptr<OutputFile> file_;    // of rows that memory does not hold; goes with the object unless saved
  std::unique_ptr<ByteSource> source_;  // of rows that a file holds, once they are read
};

/// `<column>` f32 [documents] of all passes, the first of which has every document, `document` u64 [documents],
/// file << 32 | record, and `id` u64 [documents], document_hash() of its id; chunked, deflate. NaN = not measured.
/// Attributes say what they were measured of: `made_of`, the fingerprint of the corpus's settings, and `file`, the name
/// of the input. Appears by rename.
void write_values(const std::filesystem::path& path, const std::string& made_of, const std::string& name, uint32_t file,
                  std::span<ValueRows> passes);

}  // namespace coppice
