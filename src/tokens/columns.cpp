// Columns: reading by rows, packing, and write - read back - rename.
#include "src/tokens/columns.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/tokens/half.h"

namespace coppice {

namespace {

constexpr uint64_t kBlockBytes = uint64_t{4} << 20;

Hdf5Type element_type(IdPacking packing) {
  switch (packing) {
    case IdPacking::two_bytes:
      return Hdf5Type::u16;
    case IdPacking::three_bytes:
      return Hdf5Type::u8;
    case IdPacking::four_bytes:
      return Hdf5Type::u32;
  }
  throw InternalError("unknown packing");
}

std::vector<uint64_t> dims_of(uint64_t rows, uint64_t per_row) {
  return per_row == 1 ? std::vector<uint64_t>{rows} : std::vector<uint64_t>{rows, per_row};
}
std::vector<uint64_t> dims_of(IdPacking packing, uint64_t rows, uint64_t per_row) {
  COPPICE_CHECK(per_row == 1 || packing != IdPacking::three_bytes, "three-byte ids stand alone in their row");
  return dims_of(rows, packing == IdPacking::three_bytes ? 3 : per_row);
}

uint64_t row_bytes_of(Hdf5Type type, const std::vector<uint64_t>& dims) {
  uint64_t bytes = size_of(type);
  for (size_t axis = 1; axis < dims.size(); ++axis) bytes *= dims[axis];
  return bytes;
}

uint64_t block_rows(uint64_t row_bytes) { return std::max<uint64_t>(1, kBlockBytes / row_bytes); }

/// Little-endian host assumed throughout.
template <class Out>
void unpack(const uint8_t* packed, uint64_t count, IdPacking packing, Out* out) {
  switch (packing) {
    case IdPacking::two_bytes:
      for (uint64_t i = 0; i < count; ++i) {
        uint16_t value;
        std::memcpy(&value, packed + 2 * i, 2);
        out[i] = static_cast<Out>(value);
      }
      break;
    case IdPacking::three_bytes:
      for (uint64_t i = 0; i < count; ++i)
        out[i] = static_cast<Out>(uint32_t{packed[3 * i]} | uint32_t{packed[3 * i + 1]} << 8 |
                                  uint32_t{packed[3 * i + 2]} << 16);
      break;
    case IdPacking::four_bytes:
      for (uint64_t i = 0; i < count; ++i) {
        uint32_t value;
        std::memcpy(&value, packed + 4 * i, 4);
        out[i] = static_cast<Out>(value);
      }
      break;
  }
}

void read_bytes(int descriptor, const std::filesystem::path& path, uint64_t offset, uint8_t* out, size_t bytes) {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor, out, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_unreadable(path, "cannot be read", errno);
    if (got == 0) throw UserError::bad_file(path.string(), "was cut short while in use");
    out += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
}

}  // namespace

uint64_t even_chunk_rows(uint64_t rows, uint64_t limit) {
  if (rows == 0) return 1;
  const uint64_t chunks = (rows + limit - 1) / limit;
  return (rows + chunks - 1) / chunks;
}

RawColumn::RawColumn(const std::filesystem::path& file, std::string dataset, Hdf5Type type,
                     const std::vector<uint64_t>& dims)
    : file_(std::make_unique<Hdf5Reader>(file)),
      path_(file),
      dataset_(std::move(dataset)),
      type_(type),
      rows_(dims.at(0)),
      row_bytes_(row_bytes_of(type, dims)) {
  if (!file_->has(dataset_)) throw UserError::bad_file(file.string(), "dataset " + dataset_ + " is missing");
  const Hdf5Shape shape = file_->shape(dataset_);
  if (shape.type != type || shape.dims != dims)
    throw UserError::bad_file(
        file.string(),
        fmt::format("{}: expected {} rows of {} bytes, found another type or shape", dataset_, rows_, row_bytes_));
  if (rows_ > 0) chunks_ = file_->chunks(dataset_);  // nothing lies in no chunks
  raise_open_file_limit();  // one descriptor a column: a large corpus has more than the usual soft limit of 1024
  descriptor_ = open_for_reading(file);
}

RawColumn::RawColumn(RawColumn&& other) noexcept
    : file_(std::move(other.file_)),
      path_(std::move(other.path_)),
      dataset_(std::move(other.dataset_)),
      type_(other.type_),
      rows_(other.rows_),
      row_bytes_(other.row_bytes_),
      chunks_(std::move(other.chunks_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

RawColumn::~RawColumn() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void RawColumn::scan(const std::function<void(uint64_t, uint64_t, const uint8_t*)>& visit) const {
  std::vector<uint8_t> bytes;
  for (uint64_t begin = 0; begin < rows_; begin += block_rows(row_bytes_)) {
    const uint64_t count = std::min(block_rows(row_bytes_), rows_ - begin);
    bytes.resize(count * row_bytes_);
    file_->read(dataset_, type_, begin, count, bytes.data());
    visit(begin, count, bytes.data());
  }
}

void RawColumn::finish_checks() { file_.reset(); }

void RawColumn::read(uint64_t begin, uint64_t count, const std::function<void(uint64_t, const uint8_t*)>& visit) const {
  COPPICE_CHECK(begin <= rows_ && count <= rows_ - begin, fmt::format("rows {} + {} of {}", begin, count, rows_));
  while (count > 0) {
    const uint64_t within = begin % chunks_.rows, part = std::min(count, chunks_.rows - within);
    scratch_.resize(part * row_bytes_);
    read_bytes(descriptor_, path_, chunks_.offsets[begin / chunks_.rows] + within * row_bytes_, scratch_.data(),
               scratch_.size());
    visit(part, scratch_.data());
    begin += part;
    count -= part;
  }
}

IdColumn::IdColumn(const std::filesystem::path& file, std::string dataset, IdPacking packing, uint64_t rows,
                   uint64_t per_row)
    : RawColumn(file, std::move(dataset), element_type(packing), dims_of(packing, rows, per_row)),
      packing_(packing),
      per_row_(per_row) {}

void IdColumn::scan(const std::function<void(uint64_t, const std::vector<uint32_t>&)>& visit) const {
  std::vector<uint32_t> ids;
  RawColumn::scan([&](uint64_t begin, uint64_t rows, const uint8_t* bytes) {
    ids.resize(rows * per_row_);
    unpack(bytes, ids.size(), packing_, ids.data());
    visit(begin, ids);
  });
}

void IdColumn::read(uint64_t begin, uint64_t count, int64_t* out) const {
  RawColumn::read(begin, count, [&](uint64_t rows, const uint8_t* bytes) {
    unpack(bytes, rows * per_row_, packing_, out);
    out += rows * per_row_;
  });
}

namespace {

void unpack_halves(const uint8_t* bytes, uint64_t count, float* out) {
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, bytes + 2 * i, 2);
    out[i] = half_to_float(bits);
  }
}

}  // namespace

HalfColumn::HalfColumn(const std::filesystem::path& file, std::string dataset, uint64_t rows, uint64_t per_row)
    : RawColumn(file, std::move(dataset), Hdf5Type::f16, dims_of(rows, per_row)), per_row_(per_row) {}

void HalfColumn::scan(const std::function<void(uint64_t, const std::vector<float>&)>& visit) const {
  std::vector<float> values;
  RawColumn::scan([&](uint64_t begin, uint64_t rows, const uint8_t* bytes) {
    values.resize(rows * per_row_);
    unpack_halves(bytes, values.size(), values.data());
    visit(begin, values);
  });
}

void HalfColumn::read(uint64_t begin, uint64_t count, float* out) const {
  RawColumn::read(begin, count, [&](uint64_t rows, const uint8_t* bytes) {
    unpack_halves(bytes, rows * per_row_, out);
    out += rows * per_row_;
  });
}

std::vector<uint8_t> pack_ids(const std::vector<uint32_t>& ids, IdPacking packing) {
  const size_t width = static_cast<size_t>(packing);
  const uint32_t none = packing == IdPacking::four_bytes ? kNoId : (uint32_t{1} << (8 * width)) - 1;
  std::vector<uint8_t> packed(ids.size() * width);
  for (size_t i = 0; i < ids.size(); ++i) {
    COPPICE_CHECK(ids[i] == kNoId || ids[i] < none, fmt::format("id {} does not fit in {} bytes", ids[i], width));
    const uint32_t value = std::min(ids[i], none);
    std::memcpy(packed.data() + i * width, &value, width);
  }
  return packed;
}

PackedColumn id_column(std::string dataset, IdPacking packing, uint64_t rows, uint64_t per_row, uint64_t chunk_rows,
                       const std::vector<uint8_t>& packed) {
  return {std::move(dataset), element_type(packing), dims_of(packing, rows, per_row), chunk_rows, packed.data()};
}

PackedColumn half_column(std::string dataset, uint64_t rows, uint64_t per_row, uint64_t chunk_rows,
                         const void* halves) {
  return {std::move(dataset), Hdf5Type::f16, dims_of(rows, per_row), chunk_rows, static_cast<const uint8_t*>(halves)};
}

void write_column(Hdf5Writer& file, const PackedColumn& column) {
  file.write_chunked(column.dataset, column.type, column.dims, even_chunk_rows(column.dims[0], column.chunk_rows),
                     column.bytes);
}

CommittedFile verify_and_commit(const std::filesystem::path& temporary, const std::filesystem::path& path,
                                const std::vector<PackedColumn>& columns) {
  {
    const Hdf5Reader file(temporary);
    std::vector<uint8_t> block;
    for (const PackedColumn& column : columns) {
      const uint64_t row_bytes = row_bytes_of(column.type, column.dims), rows = column.dims[0];
      for (uint64_t begin = 0; begin < rows; begin += block_rows(row_bytes)) {
        const uint64_t count = std::min(block_rows(row_bytes), rows - begin);
        block.resize(count * row_bytes);
        file.read(column.dataset, column.type, begin, count, block.data());
        if (std::memcmp(block.data(), column.bytes + begin * row_bytes, block.size()) != 0)
          throw IoError(temporary.string(),
                        fmt::format("{} reads back differently from what was written", column.dataset));
      }
    }
  }
  CommittedFile result;
  result.bytes = std::filesystem::file_size(temporary);
  result.sha256 = sha256_file(temporary);
  OutputFile file(temporary, OutputFile::Mode::existing);
  file.sync();
  file.close();
  commit_rename(temporary, path);
  return result;
}

void check_listed_file(const std::filesystem::path& path, uint64_t bytes, const std::string& sha256) {
  std::error_code error;
  const uint64_t found = std::filesystem::file_size(path, error);
  if (error) throw_unreadable(path, "listed in the manifest but cannot be read", error.value());
  if (found != bytes)
    throw UserError::bad_file(path.string(), fmt::format("expected {} bytes (manifest), found {}", bytes, found));
  const std::string digest = sha256_file(path);
  if (digest != sha256)
    throw UserError::bad_file(path.string(),
                              fmt::format("SHA-256 differs from the manifest: expected {}, found {}", sha256, digest));
}

}  // namespace coppice
