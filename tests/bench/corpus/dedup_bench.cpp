// Deduplication beside data_peers.py, which runs what a user would run instead:
//   dedup_bench signatures DOCS.jsonl    112 values of word 5-grams, whole and by their parts; the peer's
//                                        `signatures` (rensa, datasketch, datatrove)
//   dedup_bench group 20000000           the first document of every repeated key, through files as the step does it
//                                        and in memory; the peer's `group` (DuckDB)

#include <cstdlib>
#include <ctime>
#include <span>

#include "src/base/errors.h"
#include "src/base/random.h"
#include "src/corpus/dedup/signature.h"
#include "src/corpus/dedup/sorted_runs.h"
#include "src/text/words/normal_form.h"
#include "tests/bench/corpus/text_bench.h"
#include "tests/scratch_folder.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

void check(bool right, const char* what) {
  if (right) return;
  fmt::print(stderr, "wrong: {}\n", what);
  std::exit(1);
}

void measure_signatures(const char* path) {
  std::vector<std::string> normals;
  std::vector<std::vector<uint64_t>> shingles;
  const std::vector<Document> documents = read_documents(path);
  double megabytes = 0, num_shingles = 0;
  for (const Document& document : documents) {
    megabytes += static_cast<double>(document.text.size()) / 1e6;
    normal_form(document.text, normals.emplace_back());
    shingle_hashes(normals.back(), {}, shingles.emplace_back());
    num_shingles += static_cast<double>(shingles.back().size());
  }
  const SignatureShape shape;
  SignatureMaker maker(shape, 1), portable(shape, 1, SignatureMaker::Code::portable),
      avx2(shape, 1, SignatureMaker::Code::avx2);
  std::vector<uint32_t> row(shape.width()), expected(shape.width());
  std::vector<uint64_t> bands(14), hashes;
  for (const std::vector<uint64_t>& of_document : shingles) {
    maker.make(of_document, row);
    portable.make(of_document, expected);
    check(row == expected, "signatures differ from those of the plain loop");
  }
  std::string normal;
  const std::vector<Case> cases = {
      {"signatures",
       [&] {
         for (const Document& document : documents) {
           normal_form(document.text, normal);
           shingle_hashes(normal, {}, hashes);
           maker.make(hashes, row);
           band_hashes(row, shape, 0, bands);
         }
       }},
      {"normal_form",
       [&] {
         for (const Document& document : documents) normal_form(document.text, normal);
       }},
      {"shingles",
       [&] {
         for (const std::string& one : normals) shingle_hashes(one, {}, hashes);
       }},
      {"minima",
       [&] {
         for (const std::vector<uint64_t>& one : shingles) maker.make(one, row);
       }},
      {"minima_avx2",
       [&] {
         for (const std::vector<uint64_t>& one : shingles) avx2.make(one, row);
       }},
  };
  const std::vector<double> medians = median_s(cases);
  for (size_t i = 0; i < cases.size(); ++i)
    emit(cases[i].name, {{"median_s", medians[i]},
                         {"mb_per_s", megabytes / medians[i]},
                         {"ns_per_shingle", medians[i] * 1e9 / num_shingles}});
}

using Record = std::array<uint64_t, 2>;
struct KeepNumber {
  static bool apply(Record&, const Run&) { return true; }
};

constexpr size_t kRunRecords = size_t{32768} * 14;  // as a file of notes has

/// Of user and system, as the peer counts.
double processor_s() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

void measure_group(size_t rows) {
  const auto draw = [](uint64_t step, uint64_t i) { return random_bits(1, Purpose::test, step, i); };
  std::vector<Record> records(rows);
  for (size_t i = 0; i < rows; ++i) records[i] = {draw(0, i), i};
  for (size_t i = 0; i < rows / 20; ++i) records[draw(1, i) % rows][0] = records[draw(2, i) % rows][0];

  std::vector<Record> sorted = records, space;
  const double before_sort = processor_s();
  sort_records(std::span(sorted), space);
  uint64_t in_memory = 0, through_files = 0, firsts = 0;
  for (size_t i = 1; i < rows; ++i) in_memory += sorted[i][0] == sorted[i - 1][0] ? 1 : 0;
  const double memory_s = processor_s() - before_sort;
  check(std::ranges::is_sorted(sorted), "records are not in order");
  sorted = {};

  const ScratchFolder folder("dedup-bench");
  const double begin = processor_s();
  std::vector<Run> runs;
  for (size_t done = 0; done < rows; done += kRunRecords) {
    const auto run = std::span(records).subspan(done, std::min(kRunRecords, rows - done));
    sort_records(run, space);
    runs.push_back({.path = folder / std::to_string(runs.size())});
    RecordWriter writer(runs.back().path, sizeof(Record), 0);
    writer.write(run.data(), run.size());
    writer.commit();
  }
  records = {};
  SortedRuns<2, 1, KeepNumber> all(runs, 0);
  constexpr uint64_t kParts = 4;
  for (uint64_t part = 0; part < kParts; ++part)
    all.for_each_group(hash_range(part, kParts), uint64_t{1} << 30, [&](const auto& group) {
      ++firsts;
      group.for_each([&](const Record&) { ++through_files; });
    });
  const double files_s = processor_s() - begin;
  check(through_files - firsts == in_memory, "groups through files and in memory differ");
  const auto count = static_cast<double>(rows), edges = static_cast<double>(in_memory);
  emit("group", {{"median_s", files_s}, {"items_per_s", count / files_s}, {"edges", edges}});
  emit("group_in_memory", {{"median_s", memory_s}, {"items_per_s", count / memory_s}, {"edges", edges}});
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 3 ? argv[1] : "";
  try {
    if (what == "signatures") {
      measure_signatures(argv[2]);
    } else if (what == "group" && std::atoll(argv[2]) > 0) {
      measure_group(static_cast<size_t>(std::atoll(argv[2])));
    } else {
      fmt::print(stderr, "usage: {} signatures DOCS.jsonl | group ROWS\n", argv[0]);
      return 2;
    }
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
