// Supervised fastText models (Joulin et al. 2017, "Bag of tricks for efficient text classification"): the mean of the
// vectors of words, subwords and word n-grams, and one linear layer. Every step is done in the order and precision of
// libfasttext 0.9.2, so that probabilities are the same and thresholds that were found with it hold here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/classify/fasttext_file.h"
#include "src/corpus/classify/mapped_file.h"

namespace coppice {

/// Without `__label__` in front.
std::string_view bare_label(std::string_view label);

/// Threads share it; the weights stay where they lie in the file.
class FastTextModel {
 public:
  /// UserError::bad_file as read_fasttext_file().
  explicit FastTextModel(const std::filesystem::path& path);
  /// `bytes` must outlive the model.
  FastTextModel(std::string_view bytes, const std::string& where);

  /// As the file names them, `__label__` in front.
  const std::vector<std::string_view>& labels() const { return file_.labels; }

  /// What one thread reuses from text to text.
  struct Room {
    std::vector<int32_t> word_hashes;
    std::string word;
    std::vector<float> hidden, nodes, probabilities;
  };
  /// The probabilities of all labels, line ends being blanks; in `room`, until its next use. As libfasttext gives them:
  /// 1e-5 too large, and not of sum 1 where each label is decided for itself (ns, ova). Empty for a text of which the
  /// model knows nothing. A word `</s>` ends the text, as it does there.
  std::span<const float> predict(std::string_view text, Room& room) const;

 private:
  FastTextModel(const std::filesystem::path& path, std::unique_ptr<MappedFile> mapping);
  struct Node {
    int32_t left = -1, right = -1;
  };
  void make_tree();
  std::string_view entry(size_t id) const;  // words, then labels
  int32_t find_entry(std::string_view text, uint32_t hash) const;
  uint64_t add_subwords(std::string_view word, Room& room) const;
  uint64_t add_word(std::string_view word, Room& room) const;
  uint64_t add_word_ngrams(Room& room) const;
  uint64_t add_row(uint64_t row, Room& room) const;
  float output(uint64_t row, const Room& room) const;
  void softmax(Room& room) const;
  void sigmoids(Room& room) const;
  void walk_tree(Room& room) const;

  std::unique_ptr<MappedFile> mapping_;
  FastTextFile file_;
  std::vector<int32_t> slots_;  // of entries by hash; -1 = empty
  std::vector<Node> tree_;      // hierarchical softmax: above the leaves, children before parents
};

}  // namespace coppice
