// One column of token ids in an HDF5 file, packed to 2, 3 or 4 bytes an id, and the protocol by which such files are committed. Private to src/data.
// After their check columns are read with pread at the chunks' places: a random window then costs two microseconds instead of a chunk of 128 KiB,
// nothing of a corpus stays in this process's memory, and the library's lock and handles are left alone.
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

/// Chunks of at most `limit` rows, all nearly equal, so that the last one is not mostly padding (the demo's shards are a few chunks long).
uint64_t even_chunk_rows(uint64_t rows, uint64_t limit);

class IdColumn {
 public:
  /// Opens `dataset`; UserError::bad_file unless it holds exactly `rows` ids of this packing.
  IdColumn(const std::filesystem::path& file, std::string dataset, IdPacking packing, uint64_t rows);
  IdColumn(IdColumn&&) noexcept;
  ~IdColumn();
  /// One pass through the library, checksums included: visit(begin, ids) for consecutive blocks.
  void scan(const std::function<void(uint64_t begin, const std::vector<uint32_t>& ids)>& visit) const;
  /// Ends the part that goes through the library; file() and scan() are over, read() may begin.
  void finish_checks();
  /// Ids [begin, begin + count), zero-extended. UserError::bad_file when the file cannot be read any more. For one thread at a time.
  void read(uint64_t begin, uint64_t count, int64_t* out) const;
  const Hdf5Reader& file() const { return *file_; }
  uint64_t rows() const { return rows_; }

 private:
  std::unique_ptr<Hdf5Reader> file_;
  std::filesystem::path path_;
  std::string dataset_;
  IdPacking packing_;
  uint64_t rows_;
  Hdf5Chunks chunks_;
  int descriptor_ = -1;
  mutable std::vector<uint8_t> scratch_;
};

/// Packs ids; an id that does not fit is an InternalError. With kNoId (all bits one) as "none".
inline constexpr uint32_t kNoId = 0xFFFFFFFF;
std::vector<uint8_t> pack_ids(const std::vector<uint32_t>& ids, IdPacking packing);
/// Writes packed ids as one chunked dataset.
void write_id_column(Hdf5Writer& file, const std::string& dataset, IdPacking packing, uint64_t rows, uint64_t chunk, const std::vector<uint8_t>& packed);

struct CommittedFile {
  uint64_t bytes = 0;
  std::string sha256;
};
/// Reads the column of a closed temporary file back, compares it with what was written (IoError), syncs and renames into place.
CommittedFile verify_and_commit(const std::filesystem::path& temporary, const std::filesystem::path& path, const std::string& dataset, IdPacking packing,
                                uint64_t rows, const std::vector<uint8_t>& packed);

/// Size, then SHA-256 of a file named by a manifest; UserError::bad_file saying which of the two differs. Call before H5Fopen.
void check_listed_file(const std::filesystem::path& path, uint64_t bytes, const std::string& sha256);

}  // namespace coppice
