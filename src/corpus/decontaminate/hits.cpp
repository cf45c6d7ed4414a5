#include "src/corpus/decontaminate/hits.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <tuple>

#include "src/base/errors.h"
#include "src/base/files.h"

namespace coppice {
namespace {

struct Head {
  std::array<char, 8> magic{};
  uint64_t index = 0, documents = 0, records = 0;
};
constexpr std::array<char, 8> kHitsMagic = {'C', 'P', 'H', 'I', 'T', 'S', '0', '2'};
constexpr std::array<char, 8> kCountsMagic = {'C', 'P', 'C', 'N', 'T', 'S', '0', '2'};
constexpr uint64_t kMaxBytes = uint64_t{1} << 36;

template <class Record>
std::string_view bytes_of(const std::vector<Record>& records) {
  return {reinterpret_cast<const char*>(records.data()), records.size() * sizeof(Record)};
}

template <class Record>
void write_records(const std::filesystem::path& path, const Head& head, const std::vector<Record>& records,
                   const std::vector<uint32_t>& words = {}) {
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  bytes += bytes_of(records);
  bytes += bytes_of(words);
  const uint64_t sum = XXH3_64bits(bytes.data(), bytes.size());
  bytes.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  write_file_atomically(path, bytes);
}

/// `words`: of head.documents documents, behind the records.
template <class Record>
void read_records(const std::filesystem::path& path, const std::array<char, 8>& magic, uint64_t index,
                  std::vector<Record>& records, std::vector<uint32_t>& words) {
  const std::string bytes = read_file(path, kMaxBytes);
  Head head;
  uint64_t sum = 0;
  const auto refuse = [&](const std::string& message) {
    return UserError::bad_file(path.native(), message + "; remove it, and it is made again");
  };
  if (bytes.size() < sizeof head + sizeof sum)
    throw refuse(fmt::format("{} bytes, expected at least {}", bytes.size(), sizeof head + sizeof sum));
  std::memcpy(&head, bytes.data(), sizeof head);
  std::memcpy(&sum, bytes.data() + bytes.size() - sizeof sum, sizeof sum);
  const size_t body = bytes.size() - sizeof head - sizeof sum;
  if (head.magic != magic || head.records > body / sizeof(Record) || head.documents > body / sizeof(uint32_t) ||
      body != head.records * sizeof(Record) + head.documents * sizeof(uint32_t) ||
      sum != XXH3_64bits(bytes.data(), bytes.size() - sizeof sum))
    throw refuse("damaged or cut off");
  if (head.index != index) throw refuse("made with other benchmarks");
  records.resize(head.records);
  words.resize(head.documents);
  const char* begin = bytes.data() + sizeof head;
  if (!records.empty()) std::memcpy(records.data(), begin, records.size() * sizeof(Record));
  begin += records.size() * sizeof(Record);
  if (!words.empty()) std::memcpy(words.data(), begin, words.size() * sizeof(uint32_t));
}

void check_order(bool ordered, const std::filesystem::path& path) {
  if (!ordered) throw UserError::bad_file(path.native(), "records are out of order; remove it, and it is made again");
}

}  // namespace

void write_hits(const std::filesystem::path& path, uint64_t index, const FileHits& hits) {
  write_records(path, {kHitsMagic, index, hits.words.size(), hits.hits.size()}, hits.hits, hits.words);
}

void write_counts(const std::filesystem::path& path, uint64_t index, const std::vector<NgramCount>& counts) {
  write_records(path, {kCountsMagic, index, 0, counts.size()}, counts);
}

FileHits read_hits(const std::filesystem::path& path, uint64_t index) {
  FileHits hits;
  read_records(path, kHitsMagic, index, hits.hits, hits.words);
  const auto key = [](const DocumentHit& hit) { return std::pair(hit.document, hit.ngram); };
  check_order(std::ranges::adjacent_find(hits.hits, std::ranges::greater_equal(), key) == hits.hits.end(), path);
  return hits;
}

std::vector<NgramCount> read_counts(const std::filesystem::path& path, uint64_t index) {
  std::vector<NgramCount> counts;
  std::vector<uint32_t> none;
  read_records(path, kCountsMagic, index, counts, none);
  check_order(std::ranges::adjacent_find(counts, std::ranges::greater_equal(), &NgramCount::ngram) == counts.end(),
              path);
  return counts;
}

}  // namespace coppice
