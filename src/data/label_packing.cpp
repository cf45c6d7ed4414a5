#include "src/data/label_packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <span>

#include "src/base/errors.h"
#include "src/data/label_cache_files.h"

namespace coppice {

namespace {

constexpr uint64_t kTopKChunk = 2048;  // rows of K

/// Labelled rows that lie side by side: of which tokens, and from which row of the labels on.
struct Stretch {
  TokenRun tokens;
  uint64_t row = 0;
};

/// In the order of tokens.
std::vector<Stretch> labelled_stretches(const ShardLabels& labels, const TokenShardInfo& shard) {
  const auto k = static_cast<uint64_t>(labels.k);
  std::vector<Stretch> stretches;
  uint64_t row = 0;
  for (const TokenRun& run : labels.runs) {
    COPPICE_CHECK(run.begin <= run.end && run.end <= shard.tokens,
                  fmt::format("labels of tokens {} to {} of {}", run.begin, run.end, shard.tokens));
    for (uint64_t token = run.begin; token < run.end; ++token, ++row) {
      if (labels.id[row * k] == kNoLabel) continue;
      if (!stretches.empty() && stretches.back().tokens.end == token &&
          stretches.back().row + stretches.back().tokens.size() == row) {
        ++stretches.back().tokens.end;
      } else {
        stretches.push_back({{token, token + 1}, row});
      }
    }
  }
  std::ranges::sort(stretches, {}, [](const Stretch& stretch) { return stretch.tokens.begin; });
  for (size_t i = 1; i < stretches.size(); ++i)
    COPPICE_CHECK(stretches[i - 1].tokens.end <= stretches[i].tokens.begin,
                  fmt::format("token {} is labelled twice", stretches[i].tokens.begin));
  return stretches;
}

/// As it lies in the file; no label is all bits one in every width.
void store_id(int32_t id, const LabelFingerprint& fingerprint, uint8_t* out) {
  static_assert(kNoLabel == -1);
  COPPICE_CHECK(id >= kNoLabel && id < fingerprint.vocab_size,
                fmt::format("label {} of a vocabulary of {}", id, fingerprint.vocab_size));
  std::memcpy(out, &id, static_cast<size_t>(label_packing(fingerprint)));
}
void store_ids(const int32_t* id, uint64_t count, const LabelFingerprint& fingerprint, uint8_t* out) {
  for (uint64_t i = 0; i < count; ++i, out += static_cast<size_t>(label_packing(fingerprint)))
    store_id(id[i], fingerprint, out);
}

/// What was drawn for each row of the table, in order; of rows without a label none, as often as there are draws.
void visit_draws(const ShardLabels& labels, const std::vector<Stretch>& stretches, const LabelTable& table,
                 const std::function<void(uint64_t row, std::span<const DrawnId> drawn)>& visit) {
  const auto k = static_cast<size_t>(labels.k);
  const std::vector<DrawnId> none = {{.id = kNoLabel, .count = labels.k}};
  std::vector<int64_t> ids(k);
  std::vector<float> log_weights(labels.has_weights ? k : 0);
  uint64_t done = 0;  // rows
  auto run = table.runs().begin();
  for (const auto& [tokens, row] : stretches) {
    while (run->end() < tokens.end) ++run;
    while (done < run->place + (tokens.begin - run->begin)) visit(done++, none);
    for (uint64_t i = row; i < row + tokens.size(); ++i) {
      std::copy_n(labels.id.data() + i * k, k, ids.data());
      std::copy_n(labels.log_weight.data() + i * k, log_weights.size(), log_weights.data());
      visit(done++, count_draws(ids, log_weights));
    }
  }
  while (done < table.rows()) visit(done++, none);
}

/// Draws of the table's rows: their different ids one after the other, how often each was drawn, and its weight.
void pack_draws(const ShardLabels& labels, const std::vector<Stretch>& stretches, const LabelFingerprint& fingerprint,
                PackedLabels& packed) {
  const auto k = static_cast<uint64_t>(fingerprint.k), bytes = repeat_bytes(k);
  const auto width = static_cast<size_t>(label_packing(fingerprint));
  packed.repeats.assign(packed.table.rows() * bytes, 0);
  uint64_t different = 0;
  visit_draws(labels, stretches, packed.table, [&](uint64_t row, std::span<const DrawnId> drawn) {
    COPPICE_CHECK(drawn.size() == 1 || std::ranges::find(drawn, kNoLabel, &DrawnId::id) == drawn.end(),
                  "a label of some draws and none");
    store_counts(drawn, packed.repeats.data() + row * bytes);
    different += drawn.size();
  });
  packed.ids.reserve(different * width);  // growing it would take up to three times that for a moment
  if (labels.has_weights) packed.log_weight.reserve(different);
  visit_draws(labels, stretches, packed.table, [&](uint64_t, std::span<const DrawnId> drawn) {
    for (const DrawnId& one : drawn) {
      packed.ids.resize(packed.ids.size() + width);
      store_id(static_cast<int32_t>(one.id), fingerprint, packed.ids.data() + packed.ids.size() - width);
      if (labels.has_weights) packed.log_weight.emplace_back(one.log_weight);
    }
  });
}

/// visit(first row among the labels, rows, place of the first in the file) for each stretch.
template <class Visit>
void for_each_place(const LabelTable& table, const std::vector<Stretch>& stretches, const Visit& visit) {
  auto run = table.runs().begin();
  for (const auto& [tokens, row] : stretches) {
    while (run->end() < tokens.end) ++run;
    visit(row, tokens.size(), run->place + (tokens.begin - run->begin));
  }
}

void pack_codes(const ShardLabels& labels, const std::vector<Stretch>& stretches, const LabelFingerprint& fingerprint,
                PackedLabels& packed) {
  const LabelCode code = label_code(fingerprint);
  const auto k = static_cast<uint64_t>(fingerprint.k), draws = static_cast<uint64_t>(fingerprint.draws);
  packed.codes.assign(packed.table.rows() * code.row_bytes(), 0);
  for_each_place(packed.table, stretches, [&](uint64_t row, uint64_t count, uint64_t place) {
    for (uint64_t i = 0; i < count; ++i)
      code.write({.id = labels.id.data() + (row + i) * k,
                  .logp = labels.logp.data() + (row + i) * k,
                  .tail = labels.tail[row + i],
                  .drawn = labels.drawn.data() + (row + i) * draws},
                 packed.codes.data() + (place + i) * code.row_bytes());
  });
}

/// Most probable ids and what belongs to them, each in a column of its own.
void pack_choices(const ShardLabels& labels, const std::vector<Stretch>& stretches, const LabelFingerprint& fingerprint,
                  PackedLabels& packed) {
  const c10::Half nothing = -std::numeric_limits<float>::infinity();
  const auto k = static_cast<uint64_t>(fingerprint.k), width = k * static_cast<uint64_t>(label_packing(fingerprint)),
             rows = packed.table.rows();
  packed.ids.assign(rows * width, 0xFF);
  if (fingerprint.has_logp()) packed.logp.assign(rows * k, nothing);
  if (fingerprint.has_tail()) packed.tail.assign(rows, nothing);
  for_each_place(packed.table, stretches, [&](uint64_t row, uint64_t count, uint64_t place) {
    store_ids(labels.id.data() + row * k, count * k, fingerprint, packed.ids.data() + place * width);
    if (fingerprint.has_logp()) std::copy_n(labels.logp.data() + row * k, count * k, packed.logp.data() + place * k);
    if (fingerprint.has_tail()) std::copy_n(labels.tail.data() + row, count, packed.tail.data() + place);
  });
}

}  // namespace

uint64_t PackedLabels::num_ids(const LabelFingerprint& fingerprint) const {
  return ids.size() / static_cast<uint64_t>(label_packing(fingerprint));
}

std::vector<PackedColumn> PackedLabels::columns(const LabelFingerprint& fingerprint) const {
  const auto k = static_cast<uint64_t>(fingerprint.k);
  const uint64_t rows = table.rows(), chunk = fingerprint.has_tail() && k > 1 ? kTopKChunk : kTokenChunk;
  const bool draws = fingerprint.has_draws();
  std::vector<PackedColumn> columns;
  if (fingerprint.is_coded()) {
    columns.push_back({kCodesDataset, Hdf5Type::u8, {rows, label_row_bytes(fingerprint)}, kTopKChunk, codes.data()});
  } else {
    columns.push_back(id_column(id_dataset(fingerprint), label_packing(fingerprint),
                                draws ? num_ids(fingerprint) : rows, draws ? 1 : k, chunk, ids));
    if (draws && k > 1)
      columns.push_back({kRepeatsDataset, Hdf5Type::u8, {rows, repeat_bytes(k)}, kTokenChunk, repeats.data()});
    if (fingerprint.has_weights())
      columns.push_back(half_column(kWeightsDataset, num_ids(fingerprint), 1, chunk, log_weight.data()));
    if (fingerprint.has_logp()) columns.push_back(half_column(logp_dataset(fingerprint), rows, k, chunk, logp.data()));
    if (fingerprint.has_tail()) columns.push_back(half_column(kTailDataset, rows, 1, kTokenChunk, tail.data()));
  }
  if (!table.is_whole()) columns.push_back(table.column());
  return columns;
}

PackedLabels pack_labels(const ShardLabels& labels, const TokenShardInfo& shard, const LabelFingerprint& fingerprint) {
  const std::vector<Stretch> stretches = labelled_stretches(labels, shard);
  TokenRuns labelled;
  for (const Stretch& stretch : stretches) labelled.push_back(stretch.tokens);
  PackedLabels packed{
      .table = LabelTable::packed(merge_runs(std::move(labelled)), shard.tokens, label_row_bytes(fingerprint)),
      .codes = {},
      .ids = {},
      .repeats = {},
      .logp = {},
      .tail = {},
      .log_weight = {}};
  if (fingerprint.is_coded()) {
    pack_codes(labels, stretches, fingerprint, packed);
  } else if (fingerprint.has_draws()) {
    pack_draws(labels, stretches, fingerprint, packed);
  } else {
    pack_choices(labels, stretches, fingerprint, packed);
  }
  return packed;
}

}  // namespace coppice
