#include "src/corpus/dedup/record_file.h"

#include <doctest/doctest.h>

#include <numeric>

#include "src/base/random.h"
#include "src/corpus/dedup/record_sort.h"
#include "src/corpus/dedup/sorted_runs.h"
#include "src/corpus/dedup/spill.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

using Record = std::array<uint64_t, 2>;

constexpr uint64_t kOwner = 17;

std::vector<Record> random_records(size_t count, uint64_t different, uint64_t step = 0) {
  std::vector<Record> records;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t key = random_bits(1, Purpose::test, step, i);
    records.push_back({different == 0 ? key : key % different * (~uint64_t{0} / different), i});
  }
  return records;
}

std::filesystem::path write_records(const std::filesystem::path& path, const std::vector<Record>& records,
                                    uint32_t block_records = 0) {
  RecordWriter writer(path, sizeof(Record), kOwner, block_records);
  writer.write(records.data(), records.size());
  writer.commit();
  return path;
}

std::vector<Record> read_all(const std::filesystem::path& path, uint64_t owner = kOwner) {
  RecordReader reader(path, sizeof(Record), owner);
  std::vector<Record> records(reader.count());
  reader.read(0, records.size(), records.data());
  return records;
}

struct KeepNumber {
  static bool apply(Record& record, const Run& run) { return (record[1] += run.base) < run.base + run.documents; }
};
using Runs = SortedRuns<2, 1, KeepNumber>;

/// Every group as its records, by memory of so many bytes.
std::vector<std::vector<Record>> groups_of(const std::vector<Run>& runs, uint64_t memory_bytes, uint64_t parts = 1) {
  std::vector<std::vector<Record>> groups;
  for (uint64_t part = 0; part < parts; ++part)
    Runs(runs, kOwner).for_each_group(hash_range(part, parts), memory_bytes, [&](const auto& group) {
      groups.emplace_back();
      group.for_each([&](const Record& record) { groups.back().push_back(record); });
    });
  return groups;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("record file: any part of it comes back, by blocks of any size") {
    const ScratchFolder folder("records");
    for (const size_t count : {0, 1, 7, 8, 9, 5000})
      for (const uint32_t block : {0, 1, 8}) {
        const std::vector<Record> records = random_records(count, 0);
        RecordReader reader(write_records(folder / "a", records, block), sizeof(Record), kOwner);
        REQUIRE(reader.count() == count);
        CHECK(read_all(folder / "a") == records);
        for (size_t first = 0; first < std::min<size_t>(count, 20); ++first) {
          std::vector<Record> some(std::min<size_t>(count - first, 11));
          reader.read(first, some.size(), some.data());
          CHECK(std::equal(some.begin(), some.end(), records.begin() + static_cast<std::ptrdiff_t>(first)));
        }
      }
  }

  TEST_CASE("record file: the first record that is not below a word") {
    const ScratchFolder folder("records");
    std::vector<Record> records;
    for (uint64_t i = 0; i < 1000; ++i) records.push_back({i / 10 * 4, i});  // tens of equal words
    for (const uint32_t block : {0, 1, 7}) {
      RecordReader reader(write_records(folder / "a", records, block), sizeof(Record), kOwner);
      for (uint64_t word = 0; word < 405; ++word) {
        const auto found = std::ranges::lower_bound(records, word, {}, [](const Record& record) { return record[0]; });
        CHECK(reader.lower_bound(word) == static_cast<uint64_t>(found - records.begin()));
      }
    }
  }

  TEST_CASE("record file: a bit that is flipped and a byte that is missing are bad files, anywhere") {
    const ScratchFolder folder("records");
    write_records(folder / "a", random_records(20, 0), 8);
    const std::string whole = slurp(folder / "a");
    for (size_t at = 0; at < whole.size(); ++at) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 1 << at % 8);
      CHECK_MESSAGE(caught([&] { read_all(folder.write("b", damaged)); }).code == 3, at);
      CHECK_MESSAGE(caught([&] { read_all(folder.write("b", whole.substr(0, at))); }).code == 3, at);
    }
    CHECK(caught([&] { read_all(folder.write("b", whole + "x")); }).says("damaged records"));
    CHECK(caught([&] { read_all(folder / "nothing"); }).code == 3);
    CHECK(caught([&] { read_all(folder / "a", 18); }).says("made with other options"));
  }

  TEST_CASE("record sort: as std::sort, also where words are equal or share their beginnings") {
    for (const size_t count : {0, 1, 2, 47, 48, 49, 1000, 20000})
      for (const uint64_t different : {0, 1, 2, 300}) {
        std::vector<Record> records = random_records(count, different), space;
        std::ranges::reverse(records);
        std::vector<Record> expected = records;
        std::ranges::sort(expected);
        sort_records(std::span(records), space);
        CHECK(records == expected);
      }
    std::vector<Record> near(3000), space;
    for (size_t i = 0; i < near.size(); ++i) near[i] = {i * 7 % 3000, 0};
    sort_records(std::span(near), space);
    CHECK(std::ranges::is_sorted(near));
  }

  TEST_CASE("sorted runs: the groups of many files, for any memory and any number of parts") {
    const ScratchFolder folder("runs");
    std::vector<Run> runs;
    std::vector<Record> all;
    for (uint32_t file = 0; file < 5; ++file) {
      std::vector<Record> records = random_records(file == 3 ? 0 : 400, file == 1 ? 1 : 300, file);
      std::ranges::sort(records);
      runs.push_back({.path = write_records(folder / std::to_string(file), records, 16),
                      .file = file,
                      .base = 1000 * file,
                      .documents = 400});
      for (const Record& record : records) all.push_back({record[0], record[1] + 1000 * file});
    }
    std::ranges::sort(all);
    std::vector<std::vector<Record>> expected;
    for (const Record& record : all) {
      if (expected.empty() || expected.back()[0][0] != record[0]) expected.emplace_back();
      expected.back().push_back(record);
    }
    std::erase_if(expected, [](const auto& group) { return group.size() < 2; });
    REQUIRE(expected.size() > 100);
    for (const uint64_t memory_bytes : {0, 1000, 10000, 1 << 20})
      for (const uint64_t parts : {1, 3, 64}) CHECK(groups_of(runs, memory_bytes, parts) == expected);
  }

  TEST_CASE("sorted runs: records that are not in order, or of documents that are not there, are a bad file") {
    const ScratchFolder folder("runs");
    std::vector<Record> records = random_records(50, 0);
    std::ranges::sort(records);
    std::swap(records[20], records[21]);
    std::vector<Run> runs = {{.path = write_records(folder / "a", records), .documents = 50}};
    CHECK(caught([&] { groups_of(runs, 1 << 20); }).says("not in order"));
    std::ranges::sort(records);
    runs[0].documents = 49;
    write_records(folder / "a", records);
    CHECK(caught([&] { groups_of(runs, 1 << 20); }).says("a document that its file does not have"));
  }

  TEST_CASE("hash ranges: each hash belongs to one part") {
    for (const uint64_t parts : {1, 2, 3, 7, 1000}) {
      CHECK(hash_range(0, parts).first == 0);
      CHECK(hash_range(parts - 1, parts).last == ~uint64_t{0});
      for (uint64_t part = 1; part < parts; ++part)
        CHECK(hash_range(part, parts).first == hash_range(part - 1, parts).last + 1);
    }
  }

  TEST_CASE("spill: everything comes back in order, and the files go") {
    const ScratchFolder folder("spill");
    std::vector<Record> records = random_records(3000, 0), back;
    {
      Spill<2> spill(folder / "part", records.size(), 20000);
      for (const Record& record : records) spill.add(record);
      spill.finish();
      CHECK(spill.num_parts() > 5);
      for (size_t part = 0; part < spill.num_parts(); ++part) {
        CHECK(spill.bytes_of(part) < 20000);
        std::ranges::copy(spill.read(part), std::back_inserter(back));
      }
    }
    std::ranges::sort(records);
    CHECK(back == records);
    CHECK(folder.names().empty());
  }
}
