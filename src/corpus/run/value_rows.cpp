#include "src/corpus/run/value_rows.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <mutex>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/hdf5.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kChunkRows = uint64_t{1} << 16;
constexpr uint64_t kMaxRowBytes = uint64_t{1} << 36;
std::mutex hdf5_guard;  // the library is not made for threads

template <class Number>
std::string_view bytes_of(const std::vector<Number>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(Number)};
}

void write_columns(const fs::path& path, uint32_t file, std::span<const ValueRows> passes) {
  const std::lock_guard lock(hdf5_guard);
  Hdf5Writer writer(path, 1);
  writer.set_attribute("/", "format", "coppice.values");
  writer.set_attribute("/", "version", uint64_t{1});
  const std::vector<uint32_t>& records = passes.front().records;
  const auto write = [&](const std::string& name, Hdf5Type type, const void* data) {
    writer.write_chunked(name, type, {records.size()}, kChunkRows, data, Hdf5Writer::Packing::deflate);
  };
  std::vector<uint64_t> documents;
  for (const uint32_t record : records) documents.push_back(uint64_t{file} << 32 | record);
  write("/document", Hdf5Type::u64, documents.data());
  write("/id", Hdf5Type::u64, passes.front().ids.data());
  for (const ValueRows& rows : passes) {
    for (size_t column = 0; column < rows.columns.size(); ++column) {
      std::vector<float> values(records.size(), std::numeric_limits<float>::quiet_NaN());
      for (size_t from = 0, to = 0; from < rows.records.size(); ++from) {
        while (to < records.size() && records[to] < rows.records[from]) ++to;
        COPPICE_CHECK(to < records.size() && records[to] == rows.records[from], "a later pass saw other documents");
        values[to] = rows.values[from * rows.columns.size() + column];
      }
      write("/" + rows.columns[column], Hdf5Type::f32, values.data());
    }
  }
  writer.close();
}

}  // namespace

void ValueRows::add(uint32_t record, uint64_t id, std::span<const float> row) {
  records.push_back(record);
  ids.push_back(id);
  values.insert(values.end(), row.begin(), row.end());
}

void save_rows(const fs::path& path, const ValueRows& rows) {
  write_file_atomically(path,
                        std::string(bytes_of(rows.records)).append(bytes_of(rows.ids)).append(bytes_of(rows.values)));
}

ValueRows load_rows(const fs::path& path, std::vector<std::string> columns) {
  const std::string bytes = read_file(path, kMaxRowBytes);
  const size_t row_bytes = sizeof(uint32_t) + sizeof(uint64_t) + columns.size() * sizeof(float);
  if (bytes.size() % row_bytes != 0)
    throw UserError::bad_file(
        path.string(), fmt::format("has {} bytes, expected whole rows of {} values", bytes.size(), columns.size()));
  const size_t rows = bytes.size() / row_bytes;
  ValueRows loaded{.columns = std::move(columns)};
  size_t at = 0;
  const auto take = [&](auto& numbers, size_t count) {
    numbers.resize(count);
    if (count > 0) std::memcpy(numbers.data(), bytes.data() + at, count * sizeof numbers[0]);
    at += count * sizeof numbers[0];
  };
  take(loaded.records, rows);
  take(loaded.ids, rows);
  take(loaded.values, rows * loaded.columns.size());
  return loaded;
}

void write_values(const fs::path& path, uint32_t file, std::span<const ValueRows> passes) {
  const fs::path temporary = temporary_path(path);
  try {
    write_columns(temporary, file, passes);
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
