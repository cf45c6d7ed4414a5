#include "src/data/label_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/data/label_cache.h"

namespace coppice {

namespace {

constexpr uint64_t kFields = 3;
static_assert(sizeof(LabelRun) == kLabelRunBytes &&
              kLabelRunBytes == kFields * sizeof(uint64_t));  // read and written as it lies in memory

}  // namespace

LabelTable LabelTable::packed(const TokenRuns& labelled, uint64_t tokens, uint64_t row_bytes) {
  const uint64_t bridged = kLabelRunBytes / row_bytes;  // tokens of a gap
  std::vector<LabelRun> runs;
  for (const TokenRun& run : labelled) {
    if (!runs.empty() && run.begin - runs.back().end() <= bridged) {
      runs.back().length = run.end - runs.back().begin;
    } else {
      const uint64_t begin = runs.empty() && run.begin <= bridged ? 0 : run.begin;
      runs.push_back({.begin = begin, .length = run.end - begin, .place = 0});
    }
  }
  if (!runs.empty() && tokens - runs.back().end() <= bridged) runs.back().length = tokens - runs.back().begin;
  uint64_t place = 0;
  for (LabelRun& run : runs) {
    run.place = place;
    place += run.length;
  }
  return {tokens, std::move(runs)};
}

LabelTable LabelTable::read(const Hdf5Reader& file, uint64_t file_bytes, uint64_t rows, uint64_t tokens) {
  const std::string where = file.path().string();
  if (!file.has(kRunsDataset)) throw UserError::bad_file(where, fmt::format("dataset {} is missing", kRunsDataset));
  const Hdf5Shape shape = file.shape(kRunsDataset);
  if (shape.type != Hdf5Type::u64 || shape.dims.size() != 2 || shape.dims[1] != kFields)
    throw UserError::bad_file(
        where, fmt::format("{}: expected runs of (begin, length, place), found another type or shape", kRunsDataset));
  const uint64_t bytes = checked_multiply(shape.dims[0], kLabelRunBytes, where);
  if (bytes > file_bytes)
    throw UserError::bad_file(
        where, fmt::format("{}: {} runs cannot lie in {} bytes", kRunsDataset, shape.dims[0], file_bytes));
  std::vector<LabelRun> runs(shape.dims[0]);
  if (!runs.empty()) file.read_all(kRunsDataset, Hdf5Type::u64, runs.data(), bytes);
  uint64_t end = 0, place = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const LabelRun& run = runs[i];
    const auto refuse = [&](const std::string& expected) {
      throw UserError::bad_file(
          where, fmt::format("{}: run {} holds {} tokens from {} on, their labels at {}; expected {}", kRunsDataset, i,
                             run.length, run.begin, run.place, expected));
    };
    if (run.length == 0) refuse("a token");
    if (run.begin < end) refuse(fmt::format("tokens from {} on, behind those of the run before", end));
    end = checked_add(run.begin, run.length, where);
    if (end > tokens) refuse(fmt::format("tokens of a shard of {}", tokens));
    if (run.place != place) refuse(fmt::format("labels at {}, behind those of the run before", place));
    place += run.length;  // at most `tokens`
    if (place > rows) refuse(fmt::format("no more than the file's {} labels", rows));
  }
  if (place != rows)
    throw UserError::bad_file(where, fmt::format("{}: runs of {} tokens for {} labels", kRunsDataset, place, rows));
  return {tokens, std::move(runs)};
}

PackedColumn LabelTable::column() const {
  return {kRunsDataset,
          Hdf5Type::u64,
          {runs_.size(), kFields},
          kTokenChunk,
          reinterpret_cast<const uint8_t*>(runs_.data())};
}

uint64_t LabelTable::token_of(uint64_t row) const {
  const auto behind = std::ranges::upper_bound(runs_, row, {}, &LabelRun::place);
  COPPICE_CHECK(behind != runs_.begin() && row < rows(), fmt::format("row {} of {}", row, rows()));
  const LabelRun& run = *std::prev(behind);
  return run.begin + (row - run.place);
}

void LabelTable::visit(uint64_t begin, uint64_t count,
                       const std::function<void(uint64_t, uint64_t, uint64_t)>& visit) const {
  COPPICE_CHECK(begin <= tokens_ && count <= tokens_ - begin,
                fmt::format("labels of tokens {} + {} of {}", begin, count, tokens_));
  const uint64_t stop = begin + count;
  auto run = std::ranges::upper_bound(runs_, begin, {}, &LabelRun::end);  // the first that ends behind `begin`
  for (uint64_t token = begin; token < stop;) {
    const bool held = run != runs_.end() && run->begin <= token;
    const uint64_t part_end = std::min(stop, held ? run->end() : run != runs_.end() ? run->begin : stop);
    visit(token - begin, part_end - token, held ? run->place + (token - run->begin) : kNoRow);
    token = part_end;
    if (held) ++run;
  }
}

}  // namespace coppice
