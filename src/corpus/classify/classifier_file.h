// A trained classifier on disk, HDF5: attributes format, version, normal_form, seed, passes and the SHA-256 of what it
// was trained on; /weights f32 [buckets]; /platt f32 [2]; /held_out/auc f32 [1], /held_out/reliability f32 [10, 3],
// /held_out/precision f32 [20, 4] and the numbers of positives and negatives behind them. After the end that HDF5 knows
// of stand 64 hexadecimal digits, the SHA-256 of all before: a damaged file is refused before the library sees it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/classify/document_features.h"
#include "src/corpus/classify/held_out.h"

namespace coppice {

struct Classifier {
  std::vector<float> weights;  // a power of two up to kMaxBuckets
  Platt platt;
  HeldOutReport held_out;
  uint64_t seed = 0, passes = 0;
  std::string positive_sha256, negative_sha256;  // of the documents' ids and texts

  /// The probability of a document; NaN for one without words.
  double probability(std::span<const Feature> features) const;
};

/// By rename; IoError.
void write_classifier(const Classifier& classifier, const std::filesystem::path& path);
/// UserError::bad_file: damage, another format or a newer version, shapes and values that cannot be.
Classifier read_classifier(const std::filesystem::path& path);

/// Of the first bytes of a file: HDF5, whatever is in it.
bool is_hdf5_file(std::string_view bytes);

}  // namespace coppice
