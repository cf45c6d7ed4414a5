// Text to ids and back. Two kinds stand behind one class: SentencePiece BPE with byte fallback (tokenizer.model; ours
// are trained with the AFM options: digits split, no dummy prefix) and byte-level BPE (tokenizer.json of GPT-2, Llama
// 3, Qwen, SmolLM). Names of control pieces in a text are text.
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
  std::string
      text;         // SentencePiece: U+2581 for space; byte-level: GPT-2's printable alphabet, added tokens as they are
  float score = 0;  // SentencePiece alone
  PieceType type = PieceType::normal;
};

struct TokenizerState;

class Tokenizer {
 public:
  /// Reads a tokenizer.model or a tokenizer.json, told apart by their bytes, after the fences; a tokenizer.json takes
  /// EOS, BOS and padding from the files beside it (special_tokens.h). UserError::bad_file otherwise.
  static Tokenizer load(const std::filesystem::path& file);
  explicit Tokenizer(std::unique_ptr<TokenizerState> state);  // of src/tokens alone
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  bool is_byte_level() const;
  int64_t vocab_size() const;
  // Ours have 0 to 3; models from elsewhere number them otherwise and may lack all but EOS.
  std::optional<int64_t> unk_id() const;
  std::optional<int64_t> bos_id() const;
  int64_t eos_id() const;
  std::optional<int64_t> pad_id() const;
  /// A text is encoded as if a space stood before it: always (Llama 1 and 2, Mistral), or where it does not begin with
  /// one (byte-level with add_prefix_space).
  bool has_dummy_prefix() const;
  /// The post-processor of a tokenizer.json puts BOS before a text; encode() does not.
  bool adds_bos() const;
  /// No BOS, no EOS. Several threads may encode at once. Ids equal those of SentencePiece, or of the tokenizers library
  /// with encode_special_tokens. Bytes that are no UTF-8 become U+FFFD.
  std::vector<int32_t> encode(std::string_view text) const;
  /// The same, but names of control pieces in the text become these pieces: for prompts that a chat template wrote.
  std::vector<int32_t> encode_with_specials(std::string_view text) const;
  /// The text of a whole document: without its dummy prefix. Control pieces stand for no text.
  std::string decode(const std::vector<int32_t>& ids) const;
  /// The text of tokens that follow others: a space at its beginning is text.
  std::string decode_continuation(const std::vector<int32_t>& ids) const;
  const std::vector<Piece>& pieces() const;
  /// By id, the bytes of text that a piece stands for; `first`: as the first of a document, without a dummy prefix.
  std::vector<int64_t> piece_bytes(bool first) const;
  /// tokenizer.model or tokenizer.json, and the bytes that such a file holds: those that were read, unless a
  /// tokenizer.json or a GGUF of the SentencePiece kind was turned into a tokenizer.model.
  const std::string& file_name() const;
  const std::string& model_bytes() const;
  const std::string& fingerprint() const;  // tokenizer_sha256
  /// Writes the file, and beside a tokenizer.json the special_tokens_map.json that load() finds EOS in.
  void save(const std::filesystem::path& folder) const;

 private:
  std::unique_ptr<TokenizerState> state_;
};

/// The tokenizer's file of a folder, tokenizer.model before tokenizer.json; nothing when it has neither.
std::optional<std::filesystem::path> tokenizer_in(const std::filesystem::path& folder);

/// BPE merges of the normal pieces: for every piece, the highest score first and by id among equals, every split whose
/// halves are pieces, shorter left half first.
std::vector<std::pair<std::string, std::string>> merge_list(const std::vector<Piece>& pieces);
/// Two merged pieces of `merges` (merge_list) with one score, of which SentencePiece takes the one that stands further
/// left: no order of merges says that.
std::optional<std::pair<std::string, std::string>> find_equal_merges(
    const std::vector<Piece>& pieces, const std::vector<std::pair<std::string, std::string>>& merges);

}  // namespace coppice
