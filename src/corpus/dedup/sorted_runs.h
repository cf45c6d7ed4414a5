// Records that lie sorted in many files, seen as one sorted sequence that is cut into groups of equal keys. A range of
// hashes is read from every file; what of it fits a cache is gathered, sorted and scanned, piece by piece. A range that
// does not fit into memory is halved, and a single hash that does not fit is read file by file, which is its order
// already. So memory is bounded whatever the records are, and the groups are the same for every bound.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>
#include <vector>

#include "src/corpus/dedup/record_file.h"
#include "src/corpus/dedup/record_sort.h"

namespace coppice {

struct HashRange {
  uint64_t first = 0, last = ~uint64_t{0};  // both belong to it
};

/// Part `part` of `parts` of equal width.
inline HashRange hash_range(uint64_t part, uint64_t parts) {
  const auto begin = [&](uint64_t number) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(number) << 64) / parts);
  };
  return {.first = begin(part), .last = part + 1 == parts ? ~uint64_t{0} : begin(part + 1) - 1};
}

/// A file of sorted records; its documents are numbered from 0 there, and from `base` among all.
struct Run {
  std::filesystem::path path;
  uint32_t file = 0;  // number that the documents in its records carry
  uint64_t base = 0, documents = 0;
};

/// Records of `Words` words, sorted by them, of which the first `KeyWords` are a hash. `Renumber::apply(record, run)`
/// puts the number among all into a record; false where the record names no document of its run.
template <size_t Words, size_t KeyWords, class Renumber>
class SortedRuns {
 public:
  using Record = std::array<uint64_t, Words>;

  SortedRuns(std::vector<Run> runs, uint64_t owner) : runs_(std::move(runs)), owner_(owner) {}

  /// Records of equal keys, in order; may be looked through more than once.
  class Group {
   public:
    template <class Visit>
    void for_each(const Visit& visit) const {
      for (const Record& record : records_) visit(record);
      if (records_.empty()) runs_->stream(hash_, visit);
    }

   private:
    friend class SortedRuns;
    std::span<const Record> records_;
    SortedRuns* runs_ = nullptr;
    uint64_t hash_ = 0;
  };

  /// Calls `visit` for every group of two and more records, by ascending keys.
  template <class Visit>
  void for_each_group(const HashRange& range, uint64_t memory_bytes, const Visit& visit) {
    uint64_t count = 0;
    const std::vector<Slice> slices = find_slices(range, count);
    if (2 * count * sizeof(Record) <= memory_bytes || count < 2) {  // the records, and those that are gathered
      load(slices, count);
      const uint64_t pieces = count / kPiece + 1;
      for (uint64_t piece = 0; piece < pieces; ++piece) {
        gather(last_of(range, piece, pieces));
        scan(visit);
      }
    } else if (range.first == range.last) {
      Group group;
      group.runs_ = this;
      group.hash_ = range.first;
      visit(group);
    } else {
      const uint64_t middle = range.first + (range.last - range.first) / 2;
      for_each_group({.first = range.first, .last = middle}, memory_bytes, visit);
      for_each_group({.first = middle + 1, .last = range.last}, memory_bytes, visit);
    }
  }

 private:
  static constexpr uint64_t kBlock = 4096;      // records that are streamed at a time
  static constexpr uint64_t kPiece = 1U << 14;  // records that are sorted at a time: they and their space fit a cache

  struct Slice {
    const Run* run = nullptr;
    uint64_t first = 0, count = 0;
  };

  Slice find_slice(const Run& run, RecordReader& reader, const HashRange& range) const {
    const uint64_t first = range.first == 0 ? 0 : reader.lower_bound(range.first);
    const uint64_t end = range.last == ~uint64_t{0} ? reader.count() : reader.lower_bound(range.last + 1);
    if (end < first) reader.damaged("its records are not in order");
    return {.run = &run, .first = first, .count = end - first};
  }

  std::vector<Slice> find_slices(const HashRange& range, uint64_t& count) const {
    std::vector<Slice> slices;
    for (const Run& run : runs_) {
      RecordReader reader(run.path, sizeof(Record), owner_);
      slices.push_back(find_slice(run, reader, range));
      count += slices.back().count;
    }
    return slices;
  }

  /// Reads records of a file, checks that they are in order, and numbers them.
  void take(RecordReader& reader, const Run& run, const HashRange& range, uint64_t first, std::span<Record> records) {
    reader.read(first, records.size(), records.data());
    for (size_t i = 0; i < records.size(); ++i)
      if ((i > 0 && records[i] < records[i - 1]) || records[i][0] < range.first || records[i][0] > range.last)
        reader.damaged(fmt::format("record {} is not in order", first + i));
    for (Record& record : records)
      if (!Renumber::apply(record, run)) reader.damaged("a document that its file does not have");
  }

  void load(const std::vector<Slice>& slices, uint64_t count) {
    records_.resize(count);
    loaded_.clear();
    std::span<Record> rest(records_);
    for (const Slice& slice : slices) {
      if (slice.count == 0) continue;
      RecordReader reader(slice.run->path, sizeof(Record), owner_);
      const std::span<Record> of_slice = rest.first(slice.count);
      take(reader, *slice.run, {}, slice.first, of_slice);
      loaded_.push_back(of_slice);
      rest = rest.subspan(slice.count);
    }
  }

  /// The last hash of one of so many pieces of a range.
  static uint64_t last_of(const HashRange& range, uint64_t piece, uint64_t pieces) {
    const auto width = static_cast<unsigned __int128>(range.last - range.first) + 1;
    const auto end = width * (piece + 1) / pieces;
    return end == 0 ? range.first : range.first + static_cast<uint64_t>(end - 1);
  }

  /// From every slice that is loaded, what is left of it up to this hash, sorted. Where one hash has most of the
  /// records, no space is taken to sort them.
  void gather(uint64_t last) {
    uint64_t count = 0;
    counts_.clear();
    for (const std::span<const Record> slice : loaded_) {
      size_t of_slice = 0;
      while (of_slice < slice.size() && slice[of_slice][0] <= last) ++of_slice;
      counts_.push_back(of_slice);
      count += of_slice;
    }
    gathered_.clear();
    gathered_.reserve(count);
    for (size_t i = 0; i < loaded_.size(); ++i) {
      const std::span<const Record> records = loaded_[i].first(counts_[i]);
      gathered_.insert(gathered_.end(), records.begin(), records.end());
      loaded_[i] = loaded_[i].subspan(counts_[i]);
    }
    if (count <= 8 * kPiece) {
      sort_records(std::span(gathered_), space_);
    } else {
      std::ranges::sort(gathered_);
    }
  }

  static bool same_key(const Record& a, const Record& b) {
    return std::equal(a.begin(), a.begin() + KeyWords, b.begin());
  }

  template <class Visit>
  void scan(const Visit& visit) {
    for (size_t begin = 0, end = 0; begin < gathered_.size(); begin = end) {
      for (end = begin + 1; end < gathered_.size() && same_key(gathered_[begin], gathered_[end]);) ++end;
      if (end - begin < 2) continue;
      Group group;
      group.records_ = std::span(gathered_).subspan(begin, end - begin);
      visit(group);
    }
  }

  /// The records of one hash, which are more than memory holds, so that other keys with the same first word among them
  /// (one pair in 2^64) are passed over.
  template <class Visit>
  void stream(uint64_t hash, const Visit& visit) {
    const HashRange range{.first = hash, .last = hash};
    std::vector<Record> block;
    bool begun = false;
    Record key = {};
    for (const Run& run : runs_) {
      RecordReader reader(run.path, sizeof(Record), owner_);
      const Slice slice = find_slice(run, reader, range);
      for (uint64_t done = 0; done < slice.count; done += block.size()) {
        block.resize(std::min(kBlock, slice.count - done));
        take(reader, run, range, slice.first + done, block);
        if (!std::exchange(begun, true)) key = block[0];
        for (const Record& record : block)
          if (same_key(key, record)) visit(record);
      }
    }
  }

  std::vector<Run> runs_;
  uint64_t owner_;
  std::vector<Record> records_;                  // of a range, slice by slice
  std::vector<std::span<const Record>> loaded_;  // of each slice, what is not gathered yet
  std::vector<size_t> counts_;
  std::vector<Record> gathered_, space_;
};

}  // namespace coppice
