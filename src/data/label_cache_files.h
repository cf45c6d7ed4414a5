// The files of a label cache as its writer, its readers and its summary see them: datasets of a tier, entries of the
// manifest, the columns of one file. Version 1 of the format knows no table: every file has a row for each token. A
// manifest states the least version that reads it, so a cache without packed files is the same in both.
#pragma once

#include <memory>
#include <string>

#include "src/tokens/columns.h"
#include "src/data/label_cache.h"
#include "src/data/label_table.h"

namespace coppice {

inline constexpr double kMassTolerance =
    0.05;  // what a token's stored probabilities may add up to beside 1: half precision of up to some thousand ids

inline constexpr int kLabelVersion = 2;
inline constexpr int label_version(bool packed) { return packed ? 2 : 1; }

/// How ids are stored, and what stands for none.
IdPacking label_packing(const LabelFingerprint& fingerprint);
uint32_t none_of(IdPacking packing);

/// Names of a tier's datasets: ids, log-probabilities, tail.
inline const char* id_dataset(const LabelFingerprint& fingerprint) { return fingerprint.has_tail() ? "/ids" : "/top1"; }
inline const char* logp_dataset(const LabelFingerprint& fingerprint) {
  return fingerprint.has_tail() ? "/logp" : "/top1_logp";
}
inline constexpr const char* kTailDataset = "/tail";

/// What the manifest says of a finished shard's file.
struct LabelEntry {
  uint64_t bytes = 0, tokens = 0;
  std::string sha256;
  std::optional<uint64_t> rows;  // of a packed file
  int64_t near_ties = -1;
};

/// The sealed manifest, its fingerprint as expected; UserError::bad_file naming the first field that differs.
Json read_label_manifest(const std::filesystem::path& path, const Json& fingerprint);
/// The entry of a shard's label file, if there is one.
bool find_label_entry(const Json& manifest, const std::string& name, const std::string& where, LabelEntry& entry);

/// The columns of one label file, and which token each of their rows belongs to.
struct LabelFile {
  IdColumn ids;
  LabelTable table;
  std::unique_ptr<HalfColumn> logp, tail;

  /// UserError::bad_file where columns or table are not what the manifest's entry says.
  LabelFile(const std::filesystem::path& path, const LabelFingerprint& fingerprint, const LabelEntry& entry);

  void finish_checks() {
    ids.finish_checks();
    if (logp) logp->finish_checks();
    if (tail) tail->finish_checks();
  }

  /// Every run of tokens without a label, in order. UserError::bad_file for an id outside the vocabulary, naming the
  /// token.
  TokenRuns unlabelled(const std::string& path, const LabelFingerprint& fingerprint) const;
  /// Log-probabilities at most 0 (but for half precision), descending, and with the tail of mass 1; UserError::bad_file
  /// naming the token.
  void check_probabilities(const std::string& path, const LabelFingerprint& fingerprint) const;
};

}  // namespace coppice
