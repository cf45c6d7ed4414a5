// HDF5 1.10.8 without being hurt: checked handles, V18 format, fixed rules. start_hdf5() must run before any other use
// in a process. Rules and measurements behind them: every close is checked, only hard links, no plugins, fletcher32 on
// chunked datasets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// H5dont_atexit, silent error stack, plugins off. Idempotent.
void start_hdf5();

enum class Hdf5Type { f32, f16, u8, u16, u32, u64, i32, i64 };
size_t size_of(Hdf5Type type);

struct Hdf5Shape {
  Hdf5Type type;
  std::vector<uint64_t> dims;
};

/// Where the chunks of a dataset lie in its file, in order along the first axis; each holds `rows` rows, the last one
/// padded.
struct Hdf5Chunks {
  uint64_t rows = 0;
  std::vector<uint64_t> offsets;
};

/// A file opened for reading. UserError::bad_file on anything unexpected: the caller has verified size and hash of own
/// files before. Refused by name, before a byte is read: soft and external links, external and virtual storage, filters
/// other than fletcher32, shuffle and deflate, variable-length and compound types, byte orders and sizes outside
/// Hdf5Type, more than 1000 declared bytes per stored one above 4 GiB. Calls of several threads are serialised.
class Hdf5Reader {
 public:
  explicit Hdf5Reader(std::filesystem::path path);
  ~Hdf5Reader();
  Hdf5Reader(const Hdf5Reader&) = delete;
  Hdf5Reader& operator=(const Hdf5Reader&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool has(const std::string& dataset) const;
  Hdf5Shape shape(const std::string& dataset) const;
  /// Names of all datasets with their full paths ("/model/norm.weight"), sorted.
  std::vector<std::string> datasets() const;
  /// Rows [begin, begin + count) along the first axis, converted to `type`, into `out` (exactly that many elements).
  /// Only conversions that keep every value are done (u16 to i64, f16 to f32); others are refused.
  void read(const std::string& dataset, Hdf5Type type, uint64_t begin, uint64_t count, void* out) const;
  /// The whole dataset; `bytes` is checked against its size.
  void read_all(const std::string& dataset, Hdf5Type type, void* out, uint64_t bytes) const;
  /// For reading with pread, past the library's lock and cache: chunks along the first axis whose bytes lie there as
  /// they are (fletcher32 only appends to them). Refuses any other layout.
  Hdf5Chunks chunks(const std::string& dataset) const;
  std::string string_attribute(const std::string& object, const char* name) const;
  uint64_t unsigned_attribute(const std::string& object, const char* name) const;

 private:
  struct Dataset {
    int64_t id = -1;
    Hdf5Shape shape;
  };
  void check_links(const std::string& object) const;
  const Dataset& dataset(const std::string& name) const;
  void read_rows(const std::string& name, const Dataset& dataset, Hdf5Type type, uint64_t begin, uint64_t count,
                 void* out) const;

  std::filesystem::path path_;
  int64_t file_ = -1;
  mutable std::mutex guard_;
  mutable std::map<std::string, Dataset> open_;  // datasets stay open: per-sample opens cost more than any layout
};

/// A file built under the name given (the caller renames it into place). IoError on failure, closes included.
class Hdf5Writer {
 public:
  /// `alignment` of data in the file; 1 for files of small chunks, which would lose up to a page each.
  explicit Hdf5Writer(std::filesystem::path path, uint64_t alignment = 4096);
  ~Hdf5Writer();
  Hdf5Writer(const Hdf5Writer&) = delete;
  Hdf5Writer& operator=(const Hdf5Writer&) = delete;

  enum class Packing { none, deflate };
  /// Chunked along the first axis with fletcher32, early allocation (a full disk stops here), written whole. Deflated
  /// (level 4, bytes shuffled before) for what is kept to be looked at, not to be read quickly.
  void write_chunked(const std::string& dataset, Hdf5Type type, const std::vector<uint64_t>& dims, uint64_t chunk_rows,
                     const void* data, Packing packing = Packing::none);
  /// The same dataset without its values, which come by write_rows(), a chunk or several at a time.
  void make_chunked(const std::string& dataset, Hdf5Type type, const std::vector<uint64_t>& dims, uint64_t chunk_rows,
                    Packing packing = Packing::none);
  /// Rows [begin, begin + count) along the first axis of a dataset of `type`, made before.
  void write_rows(const std::string& dataset, Hdf5Type type, uint64_t begin, uint64_t count, const void* data);
  /// Contiguous, allocated early, never filled: the skeleton. Its bytes are written after close() at
  /// contiguous_offset().
  void reserve_contiguous(const std::string& dataset, Hdf5Type type, const std::vector<uint64_t>& dims);
  void set_attribute(const std::string& object, const char* name, std::string_view value);  // fixed-length string
  void set_attribute(const std::string& object, const char* name, uint64_t value);
  void set_attribute(const std::string& object, const char* name, const std::vector<uint64_t>& values);  // u64 [n]
  /// Offset of a reserved dataset in the file; call before close(). Zero elements: returns 0.
  uint64_t contiguous_offset(const std::string& dataset) const;
  void close();

 private:
  std::filesystem::path path_;
  int64_t file_ = -1;
};

}  // namespace coppice
