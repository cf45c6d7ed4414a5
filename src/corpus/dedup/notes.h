// What deduplication notes of the documents of a file, in files beside one another, and how all of them are read
// again. <folder>/notes/<number of the file>.<what>:
//   bands.<k>   {hash of a band, document}, sorted, of the k-th 16,384 documents; document = file << 32 | record
//   exact.<k>   {hash of the normal form (128 bits), document, keep value}, sorted, of the same
//   values      the signature of each document
//   shingles    with verify = "text": the different shingle hashes of each document, sorted
//   ids         of the documents, one behind the other
//   keys        {keep value, begin in ids, begin in shingles} of each document, and the ends of both; written last
//   left        a byte of each document: 1 where this step and those right in front of it leave it; of the settling
// Documents without words have values and keys alone: they meet nobody.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/dedup/record_file.h"
#include "src/corpus/dedup/signature.h"
#include "src/corpus/dedup/sorted_runs.h"
#include "src/corpus/step.h"

namespace coppice {

/// Of the file that a finished run leaves beside its notes (settle.h).
inline constexpr const char* kClustersName = "clusters.jsonl.zst";

struct NoteOptions {
  SignatureShape shape;
  ShingleOptions shingle;
  uint64_t seed = 1;
  bool by_source = false;      // documents of different sources never meet
  bool keep_shingles = false;  // what exact similarities are computed from
  std::string keep = "first";  // "longest", "newest", "score:<name>": what the keep value says

  /// A hash of all that decides whether documents meet.
  uint64_t owner() const;
};

/// The smaller, the better: 0 for "first".
uint64_t keep_value(const Document& document, std::string_view keep);

std::unique_ptr<GroupNotes> write_notes(const GroupPlace& place, uint32_t file, const NoteOptions& options);

/// The folder of an older run's notes, which `path` is or holds. UserError::bad_file when there is none or several,
/// and when that run did not finish.
std::filesystem::path find_notes(const std::filesystem::path& path);
/// A hash of all signatures in that folder, and of which documents are left. UserError::bad_file for signatures of
/// other options, and for those of a run that kept no shingles where they are asked for.
uint64_t hash_of_notes(const std::filesystem::path& folder, const NoteOptions& options);

struct NotedFile {
  std::filesystem::path stem;  // the names of its notes without their endings
  uint32_t number = 0;         // within its run
  uint64_t base = 0;           // of its first document among all
  uint64_t documents = 0;
  int64_t priority = 0;
  bool is_reference = false;  // of an older run: what it left stays
};

using BandRecord = std::array<uint64_t, 2>;   // hash, document
using ExactRecord = std::array<uint64_t, 4>;  // hash, hash, document, keep value
using KeyRecord = std::array<uint64_t, 3>;

struct RenumberBand {
  static bool apply(BandRecord& record, const Run& run);
};
struct RenumberExact {
  static bool apply(ExactRecord& record, const Run& run);
};
using BandRuns = SortedRuns<2, 1, RenumberBand>;
using ExactRuns = SortedRuns<4, 2, RenumberExact>;

/// The documents of all files, those of references first, by one number each.
class NotedDocuments {
 public:
  NotedDocuments(const GroupPlace& place, const NoteOptions& options, const std::filesystem::path& reference_folder);

  const std::vector<NotedFile>& files() const { return files_; }
  uint64_t size() const { return size_; }
  const NotedFile& file_of(uint64_t document) const;
  /// Whether those in front of this step, or the older run, have left a document: a bit each. Empty: all are left.
  std::vector<bool> left(const GroupPlace& place) const;
  BandRuns band_runs() const { return {runs_of("bands"), owner_}; }
  ExactRuns exact_runs() const { return {runs_of("exact"), owner_}; }

  RecordReader keys(const NotedFile& file) const;
  RecordReader values(const NotedFile& file) const;
  RecordReader ids(const NotedFile& file) const;
  RecordReader shingles(const NotedFile& file) const;
  /// What left() tells a later run about this file.
  RecordWriter left_writer(const NotedFile& file) const;
  size_t width() const { return width_; }

 private:
  std::vector<Run> runs_of(const char* what) const;

  uint64_t owner_, size_ = 0;
  size_t width_;
  std::vector<NotedFile> files_;
};

/// Ids of documents, wherever they lie; some files stay open.
class NotedIds {
 public:
  explicit NotedIds(uint64_t owner) : owner_(owner) {}
  std::string id_of(const std::filesystem::path& stem, uint64_t record);

 private:
  struct Opened {
    RecordReader keys, ids;
  };
  uint64_t owner_;
  std::map<std::filesystem::path, Opened> opened_;
};

std::filesystem::path notes_stem(const std::filesystem::path& folder, uint32_t file);

}  // namespace coppice
