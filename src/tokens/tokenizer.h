// SentencePiece BPE with byte fallback and without normalisation: exact round trip. Ours are trained with the AFM
// options (digits split, no dummy prefix).
#pragma once

#include <cstdint>
#include <filesystem>
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

/// BPE merges of the normal pieces: for every piece, the highest score first and by id among equals, every split whose
/// halves are pieces, shorter left half first.
std::vector<std::pair<std::string, std::string>> merge_list(const std::vector<Piece>& pieces);
/// Two merged pieces of `merges` (merge_list) with one score, of which SentencePiece takes the one that stands further
/// left: no order of merges says that.
std::optional<std::pair<std::string, std::string>> find_equal_merges(
    const std::vector<Piece>& pieces, const std::vector<std::pair<std::string, std::string>>& merges);

}  // namespace coppice
