// coppice-parquet FILE COLUMN MAX_BYTES: the rows of a Parquet file as JSON lines on stdout,
//   {"id":...,"text":...,"metadata":{...}}      or      too long
// text from COLUMN (`a.b`: field b of the structure a), the other columns of plain values as metadata. A program of its
// own, so that Arrow's libraries share no process with LibTorch's and a damaged file harms this one alone: it holds
// itself to 4 GB of memory and to time by the file's size. Exit code 3 and one line on stderr for a bad file.
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/schema.h>
#include <sys/resource.h>

#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr rlim_t kMemory = rlim_t{4} << 30;
constexpr int64_t kRows = 1024;  // of a batch

template <class Value>
Value value_of(arrow::Result<Value> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return std::move(result).ValueUnsafe();
}

void limit(int resource, rlim_t most) {
  const rlimit both{most, most};
  setrlimit(resource, &both);
}

void append_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  out += '"';
}

/// The value of a row as JSON; false, and nothing written, for null and for what is no plain value.
bool append_value(std::string& out, const arrow::Array& array, int64_t row) {
  if (array.IsNull(row)) return false;
  switch (array.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      append_string(out, static_cast<const arrow::BinaryArray&>(array).GetView(row));
      return true;
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      append_string(out, static_cast<const arrow::LargeBinaryArray&>(array).GetView(row));
      return true;
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW:
      append_string(out, static_cast<const arrow::BinaryViewArray&>(array).GetView(row));
      return true;
    case arrow::Type::DICTIONARY: {
      const auto& words = static_cast<const arrow::DictionaryArray&>(array);
      return append_value(out, *words.dictionary(), words.GetValueIndex(row));
    }
    case arrow::Type::FLOAT:
    case arrow::Type::DOUBLE: {
      const double number = array.type_id() == arrow::Type::FLOAT
                                ? static_cast<const arrow::FloatArray&>(array).Value(row)
                                : static_cast<const arrow::DoubleArray&>(array).Value(row);
      if (!std::isfinite(number)) return false;
      char digits[32];
      out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
      return true;
    }
    default: {
      const std::string text = value_of(array.GetScalar(row))->ToString();
      if (arrow::is_integer(array.type_id()) || array.type_id() == arrow::Type::BOOL)
        out += text;
      else
        append_string(out, text);  // dates, times, decimals
      return true;
    }
  }
}

/// The array at the end of a path of names through structures, and whether a row of one above it is null.
struct Column {
  std::vector<std::shared_ptr<arrow::Array>> arrays;
  bool append(std::string& out, int64_t row) const {
    for (const auto& array : arrays)
      if (array->IsNull(row)) return false;
    return append_value(out, *arrays.back(), row);
  }
};

Column find_column(const arrow::RecordBatch& batch, const std::vector<std::string>& path) {
  Column column{{batch.GetColumnByName(path.front())}};
  for (size_t i = 1; i < path.size(); ++i) {
    const auto* parent = dynamic_cast<const arrow::StructArray*>(column.arrays.back().get());
    column.arrays.push_back(parent == nullptr ? nullptr : parent->GetFieldByName(path[i]));
  }
  for (const auto& array : column.arrays)
    if (array == nullptr) throw std::runtime_error("the column does not hold what its schema says");
  return column;
}

struct Leaf {
  int number;
  std::vector<std::string> path;
};

void write(const std::string& bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), stdout) != bytes.size()) std::exit(0);  // nobody reads any more
}

void run(const std::string& path, const std::string& text, size_t max_bytes) {
  parquet::arrow::FileReaderBuilder builder;
  PARQUET_THROW_NOT_OK(builder.Open(value_of(arrow::io::ReadableFile::Open(path))));
  parquet::ArrowReaderProperties properties;
  properties.set_batch_size(kRows);
  properties.set_pre_buffer(false);
  builder.properties(properties);
  std::unique_ptr<parquet::arrow::FileReader> file;
  PARQUET_THROW_NOT_OK(builder.Build(&file));
  const parquet::SchemaDescriptor& schema = *file->parquet_reader()->metadata()->schema();
  std::vector<Leaf> others;
  std::vector<int> columns;
  Leaf chosen{-1, {}};
  std::string names;
  for (int i = 0; i < schema.num_columns(); ++i) {
    const parquet::ColumnDescriptor& column = *schema.Column(i);
    const std::string name = column.path()->ToDotString();
    if (i < 20) names += (i == 0 ? "'" : ", '") + name + "'";
    if (column.max_repetition_level() > 0) continue;  // lists
    if (name == text)
      chosen = {i, column.path()->ToDotVector()};
    else if (column.path()->ToDotVector().size() == 1 && column.physical_type() != parquet::Type::FIXED_LEN_BYTE_ARRAY)
      others.push_back({i, {name}});
    else
      continue;
    columns.push_back(i);
  }
  if (chosen.number < 0) throw std::runtime_error("no column '" + text + "' of text among " + names);
  std::vector<int> groups(static_cast<size_t>(file->num_row_groups()));
  for (size_t i = 0; i < groups.size(); ++i) groups[i] = static_cast<int>(i);
  const auto batches = value_of(file->GetRecordBatchReader(groups, columns));
  std::string value, members, metadata;
  for (std::shared_ptr<arrow::RecordBatch> batch; (batch = value_of(batches->Next())) != nullptr;) {
    PARQUET_THROW_NOT_OK(batch->Validate());
    const Column texts = find_column(*batch, chosen.path);
    std::vector<Column> values;
    for (const Leaf& leaf : others) values.push_back(find_column(*batch, leaf.path));
    for (int64_t row = 0; row < batch->num_rows(); ++row) {
      members.clear();
      metadata.clear();
      for (size_t i = 0; i < others.size(); ++i) {
        const std::string& name = others[i].path.front();
        value.clear();
        if (!values[i].append(value, row)) continue;
        std::string& place = name == "id" || name == "source" ? members : metadata;
        if (!place.empty()) place += ',';
        append_string(place, name);
        place += ':' + value;
      }
      value.clear();
      if (!texts.append(value, row)) value = "\"\"";  // null holds no document
      if (value.size() > max_bytes)
        write("too long\n");
      else
        write("{" + members + (members.empty() ? "" : ",") + "\"text\":" + value + ",\"metadata\":{" + metadata +
              "}}\n");
    }
  }
  if (std::fflush(stdout) != 0) throw std::runtime_error("cannot write");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: coppice-parquet FILE COLUMN MAX_BYTES\n", stderr);
    return 2;
  }
  std::error_code error;
  const auto bytes = std::filesystem::file_size(argv[1], error);
  limit(RLIMIT_AS, kMemory);
  limit(RLIMIT_CORE, 0);
  limit(RLIMIT_CPU, 60 + (error ? 0 : bytes >> 20));  // a second a MiB: fifty times what a sound file takes
  try {
    run(argv[1], argv[2], std::stoull(argv[3]));
  } catch (const std::bad_alloc&) {
    std::fputs("its row groups need more than 4 GB of memory: write it with smaller ones\n", stderr);
    return 3;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 3;
  }
  return 0;
}
