// Columns of an HDF5 file that are read by rows - packed token ids (2, 3 or 4 bytes an id), half-precision numbers -
// and the protocol by which such files are committed. After their check columns are read with pread at the chunks'
// places: a random window then costs two microseconds instead of a chunk of 128 KiB, nothing of a corpus stays in this
// process's memory, and the library's lock and handles are left alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "src/base/hdf5.h"

namespace coppice {

/// How ids lie in the file: u16 [n], u8 [n, 3] little-endian, or u32 [n].
enum class IdPacking : int { two_bytes = 2, three_bytes = 3, four_bytes = 4 };

/// Tokens: u16 for vocabularies up to 65,535, else u32.
IdPacking token_packing(int64_t vocab_size);

/// Chunks of at most `limit` rows, all nearly equal, so that the last one is not mostly padding (the demo's shards are
/// a few chunks long).
uint64_t even_chunk_rows(uint64_t rows, uint64_t limit);

/// Rows of bytes of one dataset.
class RawColumn {
 public:
  /// Opens `dataset`; UserError::bad_file unless it is of this type and these dimensions (rows first).
  RawColumn(const std::filesystem::path& file, std::string dataset, Hdf5Type type, const std::vector<uint64_t>& dims);
  RawColumn(RawColumn&&) noexcept;
  ~RawColumn();
  /// One pass through the library, checksums included: visit(begin, rows, bytes) for consecutive blocks.
  void scan(const std::function<void(uint64_t begin, uint64_t rows, const uint8_t* bytes)>& visit) const;
  /// Ends the part that goes through the library; file() and scan() are over, read() may begin.
  void finish_checks();
  /// Rows [begin, begin + count), calling visit(rows, bytes) part by part in order. UserError::bad_file when the file
  /// cannot be read any more. For one thread at a time.
  void read(uint64_t begin, uint64_t count,
            const std::function<void(uint64_t rows, const uint8_t* bytes)>& visit) const;
  const Hdf5Reader& file() const { return *file_; }
  uint64_t rows() const { return rows_; }

 private:
  std::unique_ptr<Hdf5Reader> file_;
  std::filesystem::path path_;
  std::string dataset_;
  Hdf5Type type_;
  uint64_t rows_, row_bytes_;
  Hdf5Chunks chunks_;
  int descriptor_ = -1;
  mutable std::vector<uint8_t> scratch_;
};

/// Packed ids, `per_row` of them in a row (1: the dataset has one dimension).
class IdColumn : public RawColumn {
 public:
  IdColumn(const std::filesystem::path& file, std::string dataset, IdPacking packing, uint64_t rows,
           uint64_t per_row = 1);
  /// visit(begin, ids): the ids of consecutive blocks of rows.
  void scan(const std::function<void(uint64_t begin, const std::vector<uint32_t>& ids)>& visit) const;
  /// Ids of rows [begin, begin + count), zero-extended.
  void read(uint64_t begin, uint64_t count, int64_t* out) const;

 private:
  IdPacking packing_;
  uint64_t per_row_;
};

/// Half-precision numbers, `per_row` of them in a row (1: the dataset has one dimension).
class HalfColumn : public RawColumn {
 public:
  HalfColumn(const std::filesystem::path& file, std::string dataset, uint64_t rows, uint64_t per_row = 1);
  void scan(const std::function<void(uint64_t begin, const std::vector<float>& values)>& visit) const;
  void read(uint64_t begin, uint64_t count, float* out) const;

 private:
  uint64_t per_row_;
};

/// Packs ids; an id that does not fit is an InternalError. With kNoId (all bits one) as "none".
inline constexpr uint32_t kNoId = 0xFFFFFFFF;
std::vector<uint8_t> pack_ids(const std::vector<uint32_t>& ids, IdPacking packing);

/// One dataset to write: its bytes stay with the caller.
struct PackedColumn {
  std::string dataset;
  Hdf5Type type;
  std::vector<uint64_t> dims;
  uint64_t chunk_rows;  // at most
  const uint8_t* bytes;
};
PackedColumn half_column(std::string dataset, uint64_t rows, uint64_t per_row, uint64_t chunk_rows, const void* halves);
PackedColumn id_column(std::string dataset, IdPacking packing, uint64_t rows, uint64_t per_row, uint64_t chunk_rows,
                       const std::vector<uint8_t>& packed);
void write_column(Hdf5Writer& file, const PackedColumn& column);

struct CommittedFile {
  uint64_t bytes = 0;
  std::string sha256;
};
/// Reads the columns of a closed temporary file back, compares them with what was written (IoError), syncs and renames
/// into place.
CommittedFile verify_and_commit(const std::filesystem::path& temporary, const std::filesystem::path& path,
                                const std::vector<PackedColumn>& columns);

/// Size, then SHA-256 of a file named by a manifest; UserError::bad_file saying which of the two differs. Call before
/// H5Fopen.
void check_listed_file(const std::filesystem::path& path, uint64_t bytes, const std::string& sha256);

}  // namespace coppice
