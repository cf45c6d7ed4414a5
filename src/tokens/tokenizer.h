// SentencePiece BPE with byte fallback and without normalisation: exact round trip. Ours are trained with the AFM
// options (digits split, no dummy prefix).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice {

enum class PieceType { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
struct Piece {
  std::string text;  // with U+2581 for space
  float score = 0;
  PieceType type = PieceType::normal;
};

class Tokenizer {
 public:
  /// Loads <folder>/tokenizer.model after the fences (protobuf walk, sizes, types); UserError::bad_file otherwise.
  static Tokenizer load(const std::filesystem::path& model_file);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  int64_t vocab_size() const;
  // Ours have 0 to 3; models from elsewhere number them otherwise and may lack BOS and padding (Llama, Mistral).
  int64_t unk_id() const;
  std::optional<int64_t> bos_id() const;
  int64_t eos_id() const;
  std::optional<int64_t> pad_id() const;
  /// add_dummy_prefix: a text is encoded as if a space stood before it (Llama 1 and 2, Mistral).
  bool has_dummy_prefix() const;
  /// No BOS, no EOS. Several threads may encode at once. Equal to SentencePiece's own ids.
  std::vector<int32_t> encode(std::string_view text) const;
  /// The text of a whole document: without its dummy prefix.
  std::string decode(const std::vector<int32_t>& ids) const;
  /// The text of tokens that follow others: a space at its beginning is text.
  std::string decode_continuation(const std::vector<int32_t>& ids) const;
  const std::vector<Piece>& pieces() const;
  const std::string& model_bytes() const;  // the file, for exports
  const std::string& fingerprint() const;  // tokenizer_sha256

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

struct TokenizerOptions {
  std::string kind = "sentencepiece";
  int64_t vocab_size = 49152;
  double character_coverage = 0.9995;
  std::string path;  // an existing tokenizer.model; empty = train one
  int64_t training_bytes = 10'000'000;

  template <class Field>
  void visit_fields(Field& field) {
    field("kind", kind, "sentencepiece (BPE with the AFM options)");
    field("vocab_size", vocab_size, "pieces, with 4 control pieces and 256 bytes among them");
    field("character_coverage", character_coverage,
          "share of characters that get pieces of their own, 0.98 to 1; the rest become bytes");
    field("path", path, "an existing tokenizer.model to use; empty = train one on the corpus");
    field("training_bytes", training_bytes, "bytes of text that the trainer sees, an equal part from each domain");
  }
};

/// BPE merges of the normal pieces: for every piece, the highest score first and by id among equals, every split whose
/// halves are pieces, shorter left half first.
std::vector<std::pair<std::string, std::string>> merge_list(const std::vector<Piece>& pieces);
/// Two merged pieces of `merges` (merge_list) with one score, of which SentencePiece takes the one that stands further
/// left: no order of merges says that.
std::optional<std::pair<std::string, std::string>> find_equal_merges(
    const std::vector<Piece>& pieces, const std::vector<std::pair<std::string, std::string>>& merges);

// SentencePiece's trainer packs the place of a pair's left character in its line, 0 to 32,767, into the upper half of a
// signed 32-bit number. With longer lines it reads beyond its memory, and from 65,537 characters on it ends the
// process.
inline constexpr size_t kMaxLineCharacters = 32769;
/// Where a training text had to be cut: at NUL and U+2585, for which the trainer drops the whole line, and inside words
/// that fill a line of kMaxLineCharacters.
struct TrainingCuts {
  int64_t symbols = 0, words = 0;
};
/// The lines that the trainer sees of a text, none empty: cut at newlines as well, so that no piece is learned across
/// them.
TrainingCuts for_each_training_line(std::string_view text, const std::function<void(std::string_view line)>& take);

/// Trains on the paragraphs that `next` yields (it returns false at the end) and returns the model's bytes.
/// Same text, same bytes: num_threads is fixed. UserError::recipe when the vocabulary is too large or too small for the
/// text (names the size that is not).
std::string train_tokenizer(const TokenizerOptions& options, const std::function<bool(std::string&)>& next_paragraph);

}  // namespace coppice
