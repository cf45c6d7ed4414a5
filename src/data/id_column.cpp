// Packed id columns: reading, packing, and write - read back - rename.
#include "src/data/id_column.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {

namespace {

constexpr uint64_t kBlockRows = uint64_t{1} << 20;

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

std::vector<uint64_t> dims_of(IdPacking packing, uint64_t rows) {
  return packing == IdPacking::three_bytes ? std::vector<uint64_t>{rows, 3} : std::vector<uint64_t>{rows};
}

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
        out[i] = static_cast<Out>(uint32_t{packed[3 * i]} | uint32_t{packed[3 * i + 1]} << 8 | uint32_t{packed[3 * i + 2]} << 16);
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
    if (got <= 0) throw UserError::bad_file(path.string(), got < 0 ? fmt::format("cannot read: {}", std::strerror(errno)) : "was cut short while in use");
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

IdColumn::IdColumn(const std::filesystem::path& file, std::string dataset, IdPacking packing, uint64_t rows)
    : file_(std::make_unique<Hdf5Reader>(file)), path_(file), dataset_(std::move(dataset)), packing_(packing), rows_(rows) {
  if (!file_->has(dataset_)) throw UserError::bad_file(file.string(), "dataset " + dataset_ + " is missing");
  const Hdf5Shape shape = file_->shape(dataset_);
  if (shape.type != element_type(packing) || shape.dims != dims_of(packing, rows)) {
    throw UserError::bad_file(file.string(),
                              fmt::format("{}: expected {} ids of {} bytes, found another type or shape", dataset_, rows, static_cast<int>(packing)));
  }
  chunks_ = file_->chunks(dataset_);
  descriptor_ = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw UserError::bad_file(file.string(), fmt::format("cannot open: {}", std::strerror(errno)));
}

IdColumn::IdColumn(IdColumn&& other) noexcept
    : file_(std::move(other.file_)),
      path_(std::move(other.path_)),
      dataset_(std::move(other.dataset_)),
      packing_(other.packing_),
      rows_(other.rows_),
      chunks_(std::move(other.chunks_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

IdColumn::~IdColumn() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void IdColumn::scan(const std::function<void(uint64_t, const std::vector<uint32_t>&)>& visit) const {
  std::vector<uint8_t> packed;
  std::vector<uint32_t> ids;
  for (uint64_t begin = 0; begin < rows_; begin += kBlockRows) {
    const uint64_t count = std::min(kBlockRows, rows_ - begin);
    packed.resize(count * static_cast<size_t>(packing_));
    ids.resize(count);
    file_->read(dataset_, element_type(packing_), begin, count, packed.data());
    unpack(packed.data(), count, packing_, ids.data());
    visit(begin, ids);
  }
}

void IdColumn::finish_checks() { file_.reset(); }

void IdColumn::read(uint64_t begin, uint64_t count, int64_t* out) const {
  COPPICE_CHECK(begin <= rows_ && count <= rows_ - begin, fmt::format("ids {} + {} of {}", begin, count, rows_));
  const size_t width = static_cast<size_t>(packing_);
  while (count > 0) {
    const uint64_t within = begin % chunks_.rows, part = std::min(count, chunks_.rows - within);
    scratch_.resize(part * width);
    read_bytes(descriptor_, path_, chunks_.offsets[begin / chunks_.rows] + within * width, scratch_.data(), scratch_.size());
    unpack(scratch_.data(), part, packing_, out);
    begin += part;
    count -= part;
    out += part;
  }
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

void write_id_column(Hdf5Writer& file, const std::string& dataset, IdPacking packing, uint64_t rows, uint64_t chunk, const std::vector<uint8_t>& packed) {
  file.write_chunked(dataset, element_type(packing), dims_of(packing, rows), even_chunk_rows(rows, chunk), packed.data());
}

CommittedFile verify_and_commit(const std::filesystem::path& temporary, const std::filesystem::path& path, const std::string& dataset, IdPacking packing,
                                uint64_t rows, const std::vector<uint8_t>& packed) {
  {
    const Hdf5Reader file(temporary);
    const size_t width = static_cast<size_t>(packing);
    std::vector<uint8_t> block;
    for (uint64_t begin = 0; begin < rows; begin += kBlockRows) {
      const uint64_t count = std::min(kBlockRows, rows - begin);
      block.resize(count * width);
      file.read(dataset, element_type(packing), begin, count, block.data());
      if (std::memcmp(block.data(), packed.data() + begin * width, block.size()) != 0)
        throw IoError(temporary.string(), fmt::format("{} reads back differently from what was written", dataset));
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
  if (error) throw UserError::bad_file(path.string(), "listed in the manifest but cannot be read: " + error.message());
  if (found != bytes) throw UserError::bad_file(path.string(), fmt::format("expected {} bytes (manifest), found {}", bytes, found));
  const std::string digest = sha256_file(path);
  if (digest != sha256) throw UserError::bad_file(path.string(), fmt::format("SHA-256 differs from the manifest: expected {}, found {}", sha256, digest));
}

}  // namespace coppice
