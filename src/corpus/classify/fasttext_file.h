// The layout of a fastText model file (.bin, version 12), checked before anything is taken from it. Little-endian,
// nothing is aligned:
//   i32 magic, i32 version; 12 x i32 dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn,
//   lrUpdateRate; f64 t
//   i32 entries, words, labels; i64 tokens, pruned; an entry: text, NUL, i64 count, i8 type (0 word, 1 label)
//   u8 quantised; i64 rows, columns; f32 input [words + bucket, dim]
//   u8 quantised; i64 rows, columns; f32 output [labels, dim]
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

enum class FastTextLoss { hierarchical_softmax = 1, negative_sampling, softmax, one_vs_all };

/// Views into the bytes of the file.
struct FastTextFile {
  uint64_t dim = 0;
  int32_t word_ngrams = 0;  // 0 or 1: none
  FastTextLoss loss = FastTextLoss::softmax;
  uint32_t buckets = 0;                  // of subwords and word n-grams
  int32_t min_chars = 0, max_chars = 0;  // of a subword; max_chars <= 0: none
  std::vector<std::string_view> words, labels;
  std::vector<uint64_t> label_counts;
  const char* input = nullptr;   // (words + buckets, dim) float32 at any address
  const char* output = nullptr;  // (labels, dim)
};

/// UserError::bad_file naming byte and reason: another file or version, a quantised or unsupervised model, sizes that
/// do not fit together or into the file, words that stand twice, weights that are no numbers.
FastTextFile read_fasttext_file(std::string_view bytes, const std::string& where);

/// Of the first bytes of a file.
bool is_fasttext_file(std::string_view bytes);

}  // namespace coppice
