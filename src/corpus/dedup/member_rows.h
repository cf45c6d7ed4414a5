// Signatures and keep values of the documents that are being settled: read in the order in which they lie on disk,
// never mapped, so that memory is what was asked for.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "src/corpus/dedup/notes.h"

namespace coppice {

class MemberRows {
 public:
  explicit MemberRows(const NotedDocuments& documents) : documents_(documents) {}

  /// Bytes that load() takes for a document.
  uint64_t bytes_each() const { return documents_.width() * sizeof(uint32_t) + sizeof(uint64_t) + sizeof(uint32_t); }
  /// Sorted documents, each once; their signatures as well or, where they are too many, one by one when asked for.
  void load(std::vector<uint32_t> documents, bool signatures);
  uint64_t keep_value(uint32_t document) const { return keep_values_[place_of(document)]; }
  /// Valid until the next call for the same slot, 0 or 1.
  const uint32_t* signature(uint32_t document, size_t slot);
  /// The different shingle hashes of a document, sorted.
  std::vector<uint64_t> shingles(uint32_t document);

 private:
  size_t place_of(uint32_t document) const;
  void read_signature(uint32_t document, uint32_t* out);

  const NotedDocuments& documents_;
  std::vector<uint32_t> loaded_, signatures_;
  std::vector<uint64_t> keep_values_;
  std::array<std::vector<uint32_t>, 2> single_;
  const NotedFile* open_file_ = nullptr;  // of the reader
  std::optional<RecordReader> values_;
};

}  // namespace coppice
