// The files of a label cache as its writer, its readers and its summary see them: datasets of a tier, entries of the
// manifest, the columns of one file. Version 1 of the format knows no table: every file has a row for each token;
// version 2 knows no draws, version 3 no codes, version 4 no weights of draws. A manifest states the least version that
// reads it, so what knows none of these is the same in all.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "src/data/label_cache.h"
#include "src/data/label_codes.h"
#include "src/data/label_draws.h"
#include "src/data/label_table.h"
#include "src/tokens/columns.h"

namespace coppice {

/// What a token's stored probabilities may add up to beside 1: half precision of up to some thousand ids, or a step of
/// a code.
inline double mass_tolerance(const LabelFingerprint& fingerprint) { return fingerprint.is_coded() ? 0.1 : 0.05; }

inline constexpr int kLabelVersion = 5;
inline int label_version(const LabelFingerprint& fingerprint, bool packed) {
  return fingerprint.has_weights() ? 5 : fingerprint.is_coded() ? 4 : fingerprint.has_draws() ? 3 : packed ? 2 : 1;
}

/// How ids are stored, and what stands for none.
IdPacking label_packing(const LabelFingerprint& fingerprint);
uint32_t none_of(IdPacking packing);
/// Rows of a coded file.
LabelCode label_code(const LabelFingerprint& fingerprint);

/// Names of a tier's datasets where it is not coded: ids, log-probabilities, tail.
inline const char* id_dataset(const LabelFingerprint& fingerprint) {
  return fingerprint.has_draws() ? "/draws" : fingerprint.has_tail() ? "/ids" : "/top1";
}
inline const char* logp_dataset(const LabelFingerprint& fingerprint) {
  return fingerprint.has_tail() ? "/logp" : "/top1_logp";
}
inline constexpr const char* kTailDataset = "/tail";
inline constexpr const char* kWeightsDataset = "/log_weights";  // one for each different id of draws

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
class LabelFile {
 public:
  /// UserError::bad_file where columns or table are not what the manifest's entry says.
  LabelFile(const std::filesystem::path& path, const LabelFingerprint& fingerprint, const LabelEntry& entry);

  const LabelTable& table() const { return table_; }
  const Hdf5Reader& file() const { return codes_ ? codes_->file() : ids_->file(); }
  /// Ends the part that goes through the library; the check is over, reading may begin.
  void finish_checks();

  /// Every run of tokens without a label, in order. UserError::bad_file naming the token for an id outside the
  /// vocabulary, draws out of order, and probabilities that are none: log-probabilities above 0 (but for half
  /// precision), not in descending order, or with the tail not of mass 1; and for weights that are not finite.
  TokenRuns check() const;
  /// k ids a row of rows [row, row + count), kNoLabel where none.
  void read_ids(uint64_t row, uint64_t count, int64_t* out) const;
  /// The same of draws, and the log of each one's weight where `log_weight` is wanted: of a file with weights.
  void read_draws(uint64_t row, uint64_t count, int64_t* id, float* log_weight) const;
  /// The same with their log-probabilities, k a row, and the log of the rest (in tier top1_prob untouched); of tier
  /// hybrid the draws of the rest as well, where they are wanted.
  void read_top_k(uint64_t row, uint64_t count, int64_t* id, float* logp, float* tail, int64_t* drawn = nullptr) const;

 private:
  TokenRuns check_codes() const;
  TokenRuns check_draws() const;
  TokenRuns check_ids() const;
  void check_probabilities() const;
  void check_weights() const;
  void check_id(int64_t id, uint64_t token) const;
  void check_mass(double mass, uint64_t token) const;
  /// The different ids of each row of several draws, through the library: visit(row, ids) in order.
  void scan_draws(const std::function<void(uint64_t row, std::span<const DrawnId> drawn)>& visit) const;
  /// Rows of a coded file in order.
  void read_codes(uint64_t row, uint64_t count, const std::function<void(const LabelRow& label)>& visit) const;

  std::string path_;
  LabelFingerprint fingerprint_;
  uint64_t k_;                        // ids of a label, draws with their repeats
  std::unique_ptr<RawColumn> codes_;  // of a coded file
  std::unique_ptr<LabelCode> code_;   // how to read it
  std::unique_ptr<IdColumn> ids_;     // of any other
  LabelTable table_;
  std::unique_ptr<HalfColumn> logp_, tail_;
  std::unique_ptr<DrawCounts> counts_;   // of several draws
  std::unique_ptr<HalfColumn> weights_;  // of draws from a proposal
  int64_t none_;                         // what stands for no id in ids_
};

}  // namespace coppice
