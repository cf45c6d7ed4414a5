// Records on their way to an order of their own, more than memory holds: by ranges of their first word to files, each
// of which is then read and sorted. The files go with the object.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "src/corpus/dedup/record_file.h"
#include "src/corpus/dedup/record_sort.h"

namespace coppice {

template <size_t Words>
class Spill {
 public:
  using Record = std::array<uint64_t, Words>;

  /// As many parts as keep `most_records` records, evenly spread, within memory_bytes: half of it, since they are not.
  Spill(std::filesystem::path stem, uint64_t most_records, uint64_t memory_bytes) : stem_(std::move(stem)) {
    const uint64_t bytes = 4 * sizeof(Record) * most_records;  // the records, and space to sort them
    const uint64_t parts = std::clamp<uint64_t>(bytes / std::max<uint64_t>(memory_bytes, 1) + 1, 1, kMostParts);
    for (uint64_t part = 0; part < parts; ++part)
      writers_.push_back(std::make_unique<RecordWriter>(path_of(part), sizeof(Record), kOwner));
  }
  ~Spill() {
    std::error_code ignored;
    for (size_t part = 0; part < counts_.size(); ++part) std::filesystem::remove(path_of(part), ignored);
  }
  Spill(const Spill&) = delete;
  Spill& operator=(const Spill&) = delete;

  void add(const Record& record) {
    const auto part = static_cast<unsigned __int128>(record[0]) * writers_.size() >> 64;
    writers_[static_cast<size_t>(part)]->write(&record, 1);
  }
  /// Behind the last record.
  void finish() {
    for (const auto& writer : writers_) {
      writer->commit();
      counts_.push_back(writer->count());
    }
    writers_.clear();
  }

  size_t num_parts() const { return counts_.size(); }
  /// Of memory that read() of this part takes.
  uint64_t bytes_of(size_t part) const { return 2 * sizeof(Record) * counts_[part]; }
  /// Sorted; valid until the next call. The first words of one part are below those of the next.
  std::span<const Record> read(size_t part) {
    RecordReader reader(path_of(part), sizeof(Record), kOwner);
    records_.resize(reader.count());
    reader.read(0, reader.count(), records_.data());
    sort_records(std::span(records_), space_);
    return records_;
  }

 private:
  static constexpr uint64_t kMostParts = 4096, kOwner = 0;
  std::filesystem::path path_of(size_t part) const { return fmt::format("{}-{:04}", stem_.string(), part); }

  std::filesystem::path stem_;
  std::vector<std::unique_ptr<RecordWriter>> writers_;
  std::vector<uint64_t> counts_;
  std::vector<Record> records_, space_;
};

}  // namespace coppice
