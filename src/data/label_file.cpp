// The columns of one label file: opened as its entry in the manifest says, checked whole, then read by rows.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "src/base/checked.h"
#include "src/base/errors.h"
#include "src/data/label_cache_files.h"

namespace coppice {

namespace {

/// Rows that the columns must have, before one of them is opened.
uint64_t rows_of(const LabelEntry& entry, const LabelFingerprint& fingerprint, const std::string& where) {
  const uint64_t rows = entry.rows.value_or(entry.tokens);
  if (rows > entry.tokens)
    throw UserError::bad_file(where, fmt::format("{} labels for {} tokens (manifest)", rows, entry.tokens));
  if (checked_multiply(rows, label_row_bytes(fingerprint), where) > entry.bytes)
    throw UserError::bad_file(where, fmt::format("{} labels cannot lie in {} bytes", rows, entry.bytes));
  return rows;
}

/// Rows of the dataset of ids: one a label, and one a different id where labels are draws.
uint64_t id_rows_of(const LabelEntry& entry, const LabelFingerprint& fingerprint, const std::string& where) {
  const uint64_t rows = rows_of(entry, fingerprint, where), ids = entry.ids.value_or(rows);
  if (fingerprint.has_draws() != entry.ids.has_value() || ids < rows ||
      ids > checked_multiply(rows, fingerprint.has_draws() ? static_cast<uint64_t>(fingerprint.k) : 1, where) ||
      checked_multiply(ids, static_cast<uint64_t>(label_packing(fingerprint)), where) > entry.bytes)
    throw UserError::bad_file(
        where, fmt::format("{} different ids of {} labels of tier {} (manifest)", ids, rows, fingerprint.tier));
  return ids;
}

std::unique_ptr<RawColumn> open_codes(const std::filesystem::path& path, const LabelFingerprint& fingerprint,
                                      const LabelEntry& entry) {
  if (!fingerprint.is_coded()) return nullptr;
  return std::make_unique<RawColumn>(
      path, kCodesDataset, Hdf5Type::u8,
      std::vector<uint64_t>{rows_of(entry, fingerprint, path.string()), label_row_bytes(fingerprint)});
}

std::unique_ptr<IdColumn> open_ids(const std::filesystem::path& path, const LabelFingerprint& fingerprint,
                                   const LabelEntry& entry) {
  return std::make_unique<IdColumn>(path, id_dataset(fingerprint), label_packing(fingerprint),
                                    id_rows_of(entry, fingerprint, path.string()),
                                    fingerprint.has_draws() ? 1 : static_cast<uint64_t>(fingerprint.k));
}

/// Rows in their order become the runs of tokens without a label, tokens without a row among them.
class BareTokens {
 public:
  explicit BareTokens(const LabelTable& table) : table_(table), run_(table.runs().begin()) {}
  /// The next row's token.
  uint64_t token_of(uint64_t row) {
    while (row >= run_->place + run_->length) ++run_;
    if (row == run_->place) add(behind_, run_->begin);
    behind_ = run_->begin + (row - run_->place) + 1;
    return behind_ - 1;
  }
  void add(uint64_t begin, uint64_t end) {
    if (!bare_.empty() && bare_.back().end == begin) {
      bare_.back().end = end;
    } else if (begin < end) {
      bare_.push_back({begin, end});
    }
  }
  TokenRuns finish() {
    add(behind_, table_.tokens());
    return std::move(bare_);
  }

 private:
  const LabelTable& table_;
  std::vector<LabelRun>::const_iterator run_;
  uint64_t behind_ = 0;  // the last row's token
  TokenRuns bare_;
};

}  // namespace

LabelFile::LabelFile(const std::filesystem::path& path, const LabelFingerprint& fingerprint, const LabelEntry& entry)
    : path_(path.string()),
      fingerprint_(fingerprint),
      k_(static_cast<uint64_t>(fingerprint.k)),
      codes_(open_codes(path, fingerprint, entry)),
      ids_(codes_ ? nullptr : open_ids(path, fingerprint, entry)),
      table_(entry.rows ? LabelTable::read(file(), entry.bytes, *entry.rows, entry.tokens)
                        : LabelTable::whole(entry.tokens)),
      none_(none_of(label_packing(fingerprint))) {
  if (codes_) {
    code_ = std::make_unique<LabelCode>(label_code(fingerprint));
    return;
  }
  if (fingerprint.has_logp()) logp_ = std::make_unique<HalfColumn>(path, logp_dataset(fingerprint), ids_->rows(), k_);
  if (fingerprint.has_tail()) tail_ = std::make_unique<HalfColumn>(path, kTailDataset, ids_->rows());
  if (fingerprint.has_draws() && k_ > 1) counts_ = std::make_unique<DrawCounts>(path, table_.rows(), k_, ids_->rows());
  if (fingerprint.has_weights()) weights_ = std::make_unique<HalfColumn>(path, kWeightsDataset, ids_->rows());
}

void LabelFile::finish_checks() {
  if (codes_) return codes_->finish_checks();
  ids_->finish_checks();
  if (logp_) logp_->finish_checks();
  if (tail_) tail_->finish_checks();
  if (counts_) counts_->finish_checks();
  if (weights_) weights_->finish_checks();
}

namespace {

/// Room for one label.
struct LabelRoom {
  std::vector<int64_t> id, drawn;
  std::vector<float> logp;
  LabelRow row;
  explicit LabelRoom(const LabelFingerprint& fingerprint)
      : id(static_cast<size_t>(fingerprint.k)),
        drawn(static_cast<size_t>(fingerprint.draws)),
        logp(id.size()),
        row{.id = id.data(), .logp = logp.data(), .tail = 0, .drawn = drawn.data()} {}
};

}  // namespace

void LabelFile::read_codes(uint64_t row, uint64_t count, const std::function<void(const LabelRow&)>& visit) const {
  LabelRoom label(fingerprint_);
  codes_->read(row, count, [&](uint64_t rows, const uint8_t* bytes) {
    for (uint64_t i = 0; i < rows; ++i, bytes += code_->row_bytes()) {
      COPPICE_CHECK(code_->read(bytes, label.row) == nullptr, path_ + " holds other codes than when it was opened");
      visit(label.row);
    }
  });
}

void LabelFile::read_ids(uint64_t row, uint64_t count, int64_t* out) const {
  if (codes_) return read_codes(row, count, [&](const LabelRow& label) { out = std::copy_n(label.id, k_, out); });
  if (fingerprint_.has_draws()) return read_draws(row, count, out, nullptr);
  ids_->read(row, count, out);
  std::replace(out, out + count * k_, none_, int64_t{kNoLabel});
}

void LabelFile::read_draws(uint64_t row, uint64_t count, int64_t* id, float* log_weight) const {
  if (!counts_) {  // one draw a row
    ids_->read(row, count, id);
    std::replace(id, id + count, none_, int64_t{kNoLabel});
    if (log_weight != nullptr) weights_->read(row, count, log_weight);
    return;
  }
  std::vector<uint32_t> times;
  const uint64_t place = counts_->read(row, count, times);
  std::vector<int64_t> different(times.size());
  ids_->read(place, different.size(), different.data());
  std::ranges::replace(different, none_, int64_t{kNoLabel});
  int64_t* to = id;
  for (size_t i = 0; i < times.size(); ++i) to = std::fill_n(to, times[i], different[i]);
  if (log_weight == nullptr) return;
  std::vector<float> weights(times.size());
  weights_->read(place, weights.size(), weights.data());
  for (size_t i = 0; i < times.size(); ++i) log_weight = std::fill_n(log_weight, times[i], weights[i]);
}

void LabelFile::read_top_k(uint64_t row, uint64_t count, int64_t* id, float* logp, float* tail, int64_t* drawn) const {
  if (codes_)
    return read_codes(row, count, [&](const LabelRow& label) {
      id = std::copy_n(label.id, k_, id);
      logp = std::copy_n(label.logp, k_, logp);
      *tail++ = label.tail;
      if (drawn != nullptr) drawn = std::copy_n(label.drawn, fingerprint_.draws, drawn);
    });
  read_ids(row, count, id);
  logp_->read(row, count, logp);
  if (tail_) tail_->read(row, count, tail);
}

void LabelFile::scan_draws(const std::function<void(uint64_t, std::span<const DrawnId>)>& visit) const {
  constexpr uint64_t kRows = 4096;  // whose counts are read at a time
  std::vector<uint32_t> times;
  std::vector<DrawnId> drawn;  // of the row under way
  uint64_t row = 0, known = 0, draws = 0;
  size_t next = 0;
  const auto check_unchanged = [&](bool unchanged) {  // counts were checked, and are read a second time here
    if (!unchanged)
      throw UserError::bad_file(path_,
                                fmt::format("{}: other counts than a moment ago, the file changes while it is read; "
                                            "see that nothing writes to it, and run again",
                                            kRepeatsDataset));
  };
  ids_->scan([&](uint64_t, const std::vector<uint32_t>& block) {
    for (const uint32_t id : block) {
      if (next == times.size()) {
        check_unchanged(known < table_.rows());
        const uint64_t count = std::min(kRows, table_.rows() - known);
        counts_->read(known, count, times);
        known += count;
        next = 0;
      }
      drawn.push_back({.id = id, .count = times[next]});
      draws += times[next++];
      if (draws < k_) continue;
      visit(row++, drawn);
      drawn.clear();
      draws = 0;
    }
  });
  check_unchanged(row == table_.rows());
}

TokenRuns LabelFile::check() const {
  if (codes_) return check_codes();
  if (weights_) check_weights();
  if (counts_) return check_draws();
  TokenRuns bare = check_ids();
  if (logp_) check_probabilities();
  return bare;
}

void LabelFile::check_id(int64_t id, uint64_t token) const {
  if (id >= fingerprint_.vocab_size)
    throw UserError::bad_file(
        path_, fmt::format("label {} of token {} is outside the vocabulary of {}", id, token, fingerprint_.vocab_size));
}

void LabelFile::check_mass(double mass, uint64_t token) const {
  if (!(std::abs(mass - 1) <= mass_tolerance(fingerprint_)))
    throw UserError::bad_file(
        path_, fmt::format("the probabilities of token {} and their tail add up to {}, expected 1", token, mass));
}

TokenRuns LabelFile::check_codes() const {
  BareTokens bare(table_);
  codes_->scan([&](uint64_t first, uint64_t rows, const uint8_t* bytes) {
    LabelRoom label(fingerprint_);
    for (uint64_t row = first; row < first + rows; ++row, bytes += code_->row_bytes()) {
      const uint64_t token = bare.token_of(row);
      if (const char* complaint = code_->read(bytes, label.row))
        throw UserError::bad_file(
            path_, fmt::format("{}: the label of token {} is none: {}", kCodesDataset, token, complaint));
      if (label.id[0] == kNoLabel) {
        bare.add(token, token + 1);
        continue;
      }
      double mass = std::exp(label.row.tail);
      for (const float value : label.logp) mass += std::exp(value);
      check_mass(mass, token);
    }
  });
  return bare.finish();
}

TokenRuns LabelFile::check_draws() const {
  const auto order_of = [](const DrawnId& one) { return std::pair(-one.count, one.id); };
  BareTokens bare(table_);
  std::vector<int64_t> different;  // ids of a row, sorted
  scan_draws([&](uint64_t row, std::span<const DrawnId> drawn) {
    const uint64_t token = bare.token_of(row);
    if (drawn.size() == 1 && drawn[0].id == none_) return bare.add(token, token + 1);
    different.clear();
    for (const DrawnId& one : drawn) {
      check_id(one.id, token);
      different.push_back(one.id);
    }
    std::ranges::sort(different);
    if (std::ranges::adjacent_find(different) != different.end() || !std::ranges::is_sorted(drawn, {}, order_of))
      throw UserError::bad_file(path_, fmt::format("the draws of token {} are not different ids, the most drawn first "
                                                   "and the lower first among equals",
                                                   token));
  });
  return bare.finish();
}

TokenRuns LabelFile::check_ids() const {
  BareTokens bare(table_);
  ids_->scan([&](uint64_t first, const std::vector<uint32_t>& id) {
    for (size_t i = 0; i < id.size(); i += k_) {
      const uint64_t token = bare.token_of(first + i / k_);
      for (size_t j = i; j < i + k_; ++j)
        if (id[j] != none_) check_id(id[j], token);
      if (id[i] == none_) bare.add(token, token + 1);  // fewer than k ids are no hole
    }
  });
  return bare.finish();
}

void LabelFile::check_probabilities() const {
  std::vector<float> mass(logp_->rows(), 0.0f);
  logp_->scan([&](uint64_t begin, const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i) {
      const uint64_t row = begin + i / k_;
      if (!(values[i] <= 0.01f))
        throw UserError::bad_file(path_,
                                  fmt::format("log-probability {} at token {}", values[i], table_.token_of(row)));
      if (i % k_ > 0 && values[i] > values[i - 1])
        throw UserError::bad_file(
            path_, fmt::format("log-probabilities of token {} are not in descending order", table_.token_of(row)));
      mass[row] += std::exp(values[i]);
    }
  });
  if (!tail_) return;
  std::vector<char> labelled(mass.size(), 0);
  ids_->scan([&](uint64_t begin, const std::vector<uint32_t>& id) {
    for (size_t i = 0; i < id.size(); i += k_) labelled[begin + i / k_] = id[i] < fingerprint_.vocab_size;
  });
  tail_->scan([&](uint64_t begin, const std::vector<float>& values) {
    for (size_t i = 0; i < values.size(); ++i)
      if (labelled[begin + i]) check_mass(mass[begin + i] + std::exp(values[i]), table_.token_of(begin + i));
  });
}

void LabelFile::check_weights() const {
  weights_->scan([&](uint64_t begin, const std::vector<float>& values) {
    const auto odd = std::ranges::find_if(values, [](float value) { return !std::isfinite(value); });
    if (odd != values.end())
      throw UserError::bad_file(path_, fmt::format("{}: the log of weight {} is {}", kWeightsDataset,
                                                   begin + static_cast<uint64_t>(odd - values.begin()), *odd));
  });
}

}  // namespace coppice
