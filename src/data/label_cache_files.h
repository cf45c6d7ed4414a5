// The files of a label cache as its writer, its readers and its summary see them: datasets of a tier, entries of the
// manifest, the columns of one file. Version 1 of the format knows no table: every file has a row for each token;
// version 2 knows no draws. A manifest states the least version that reads it, so what knows neither is the same in
// all.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "src/data/label_cache.h"
#include "src/data/label_draws.h"
#include "src/data/label_table.h"
#include "src/tokens/columns.h"

namespace coppice {

inline constexpr double kMassTolerance =
    0.05;  // what a token's stored probabilities may add up to beside 1: half precision of up to some thousand ids

inline constexpr int kLabelVersion = 3;
inline int label_version(const LabelFingerprint& fingerprint, bool packed) {
  return fingerprint.has_draws() ? 3 : packed ? 2 : 1;
}

/// How ids are stored, and what stands for none.
IdPacking label_packing(const LabelFingerprint& fingerprint);
uint32_t none_of(IdPacking packing);

/// Names of a tier's datasets: ids, log-probabilities, tail.
inline const char* id_dataset(const LabelFingerprint& fingerprint) {
  return fingerprint.has_draws() ? "/draws" : fingerprint.has_tail() ? "/ids" : "/top1";
}
inline const char* logp_dataset(const LabelFingerprint& fingerprint) {
  return fingerprint.has_tail() ? "/logp" : "/top1_logp";
}
inline constexpr const char* kTailDataset = "/tail";

/// What the manifest says of a finished shard's file.
struct LabelEntry {
  uint64_t bytes = 0, tokens = 0;
  std::string sha256;
  std::optional<uint64_t> rows;  // of a packed file
  std::optional<uint64_t> ids;   // of a file of draws: different ids of all rows
  int64_t near_ties = -1;
};

/// The sealed manifest, its fingerprint as expected; UserError::bad_file naming the first field that differs.
Json read_label_manifest(const std::filesystem::path& path, const LabelFingerprint& fingerprint);
/// The entry of a shard's label file, if there is one.
bool find_label_entry(const Json& manifest, const std::string& name, const std::string& where, LabelEntry& entry);

/// The columns of one label file, and which token each of their rows belongs to.
struct LabelFile {
  IdColumn ids;
  LabelTable table;
  std::unique_ptr<HalfColumn> logp, tail;
  std::unique_ptr<DrawCounts> counts;  // of several draws
  int64_t none;                        // what stands for no id
  uint64_t k;                          // ids of a label, draws with their repeats

  /// UserError::bad_file where columns or table are not what the manifest's entry says.
  LabelFile(const std::filesystem::path& path, const LabelFingerprint& fingerprint, const LabelEntry& entry);

  void finish_checks() {
    ids.finish_checks();
    if (logp) logp->finish_checks();
    if (tail) tail->finish_checks();
    if (counts) counts->finish_checks();
  }

  /// The different ids of each row of several draws, through the library: visit(row, ids) in order.
  /// UserError::bad_file where the counts are others than those that were checked.
  void scan_draws(const std::function<void(uint64_t row, std::span<const DrawnId> drawn)>& visit) const;
  /// k ids a row of rows [row, row + count), kNoLabel where none; after finish_checks().
  void read_ids(uint64_t row, uint64_t count, int64_t* out) const;
  /// Every run of tokens without a label, in order. UserError::bad_file for an id outside the vocabulary, an id twice
  /// among draws and draws out of order, naming the token.
  TokenRuns unlabelled(const std::string& path, const LabelFingerprint& fingerprint) const;
  /// Log-probabilities at most 0 (but for half precision), descending, and with the tail of mass 1; UserError::bad_file
  /// naming the token.
  void check_probabilities(const std::string& path, const LabelFingerprint& fingerprint) const;
};

}  // namespace coppice
