// What rules have measured of the documents of one file: rows between passes, columns at the end.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace coppice {

/// Rows of one pass: columns.size() values a document, in the order of the documents.
struct ValueRows {
  std::vector<std::string> columns;  // "<step>/<rule>"
  std::vector<uint32_t> records;     // the document's place among those of the source file; ascending
  std::vector<uint64_t> ids;         // document_hash() of the document's id
  std::vector<float> values;         // [records, columns]
  void add(uint32_t record, uint64_t id, std::span<const float> row);
};

void save_rows(const std::filesystem::path& path, const ValueRows& rows);
/// UserError::bad_file for a file that does not hold whole rows of these columns.
ValueRows load_rows(const std::filesystem::path& path, std::vector<std::string> columns);

/// `<column>` f32 [documents] of all passes, the first of which has every document, `document` u64 [documents],
/// file << 32 | record, and `id` u64 [documents], document_hash() of its id; chunked, deflate. NaN = not measured.
/// Appears by rename.
void write_values(const std::filesystem::path& path, uint32_t file, std::span<const ValueRows> passes);

}  // namespace coppice
