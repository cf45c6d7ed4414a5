// What is kept of the corpus while its documents are read once: which n-grams of benchmarks stand in which document,
// a file beside each input file; and the counts that these add up to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace coppice {

struct DocumentHit {
  uint32_t document = 0, ngram = 0, times = 0;  // document: its place in the file
  bool operator==(const DocumentHit&) const = default;
};

/// Of one input file.
struct FileHits {
  std::vector<uint32_t> words;    // of each document
  std::vector<DocumentHit> hits;  // by document, then n-gram; each pair once
};

struct NgramCount {
  uint64_t ngram = 0, count = 0;
  bool operator==(const NgramCount&) const = default;
};

/// Both kinds of file: a head with the index they belong to (NgramIndex::hash), records, words of documents (of hits),
/// XXH3 of all. Appear by rename.
void write_hits(const std::filesystem::path& path, uint64_t index, const FileHits& hits);
void write_counts(const std::filesystem::path& path, uint64_t index, const std::vector<NgramCount>& counts);
/// UserError::bad_file for a file that is damaged, cut off, out of order, or of another index.
FileHits read_hits(const std::filesystem::path& path, uint64_t index);
std::vector<NgramCount> read_counts(const std::filesystem::path& path, uint64_t index);

}  // namespace coppice
