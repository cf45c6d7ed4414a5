#include "src/tokens/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/tokens/sentencepiece_walk.h"
#include "src/tokens/special_tokens.h"
#include "src/tokens/tokenizer_json_file.h"
#include "src/tokens/tokenizer_state.h"

namespace coppice {

namespace fs = std::filesystem;

namespace {

/// An object, first of all: a SentencePiece model may begin with a newline and a brace as well, but not with a quote or
/// a closing brace behind them.
bool is_json(std::string_view bytes) {
  constexpr std::string_view kWhite = " \t\r\n";
  const size_t brace = bytes.find_first_not_of(kWhite);
  if (brace == std::string_view::npos || bytes[brace] != '{') return false;
  const size_t next = bytes.find_first_not_of(kWhite, brace + 1);
  return next == std::string_view::npos || bytes[next] == '"' || bytes[next] == '}';
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<TokenizerState> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::load(const fs::path& file) {
  std::string bytes = read_file(file, kMaxModelBytes);
  if (is_json(bytes))
    return Tokenizer(read_tokenizer_json(std::move(bytes), read_special_tokens(file.parent_path()), file.string()));
  return Tokenizer(read_sentencepiece(std::move(bytes), file.string()));
}

bool Tokenizer::is_byte_level() const { return state_->is_byte_level; }
int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(state_->pieces.size()); }
std::optional<int64_t> Tokenizer::unk_id() const { return state_->unk_id; }
std::optional<int64_t> Tokenizer::bos_id() const { return state_->bos_id; }
int64_t Tokenizer::eos_id() const { return state_->eos_id; }
std::optional<int64_t> Tokenizer::pad_id() const { return state_->pad_id; }
bool Tokenizer::has_dummy_prefix() const { return state_->has_dummy_prefix; }
bool Tokenizer::adds_bos() const { return state_->adds_bos; }
const std::vector<Piece>& Tokenizer::pieces() const { return state_->pieces; }
const std::string& Tokenizer::file_name() const { return state_->file_name; }
const std::string& Tokenizer::model_bytes() const { return state_->file_bytes; }
const std::string& Tokenizer::fingerprint() const { return state_->fingerprint; }

std::vector<int32_t> Tokenizer::encode(std::string_view text) const { return state_->encode(text); }
std::vector<int32_t> Tokenizer::encode_with_specials(std::string_view text) const {
  return state_->encode_with_specials(text);
}

std::string Tokenizer::decode_continuation(const std::vector<int32_t>& ids) const {
  for (const int32_t id : ids)
    COPPICE_CHECK(id >= 0 && id < vocab_size(), fmt::format("id {} of a vocabulary of {}", id, vocab_size()));
  return state_->decode(ids);
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text = decode_continuation(ids);
  if (!state_->has_dummy_prefix) return text;
  const auto first = std::ranges::find_if(
      ids, [&](int32_t id) { return state_->pieces[static_cast<size_t>(id)].type != PieceType::control; });
  const bool has_prefix = first != ids.end() && state_->begins_with_space(state_->pieces[static_cast<size_t>(*first)]);
  return has_prefix ? text.substr(1) : text;
}

std::vector<int64_t> Tokenizer::piece_bytes(bool first) const {
  std::vector<int64_t> bytes = state_->piece_bytes();
  if (first && state_->has_dummy_prefix)
    for (size_t id = 0; id < bytes.size(); ++id)
      if (bytes[id] > 0 && state_->begins_with_space(state_->pieces[id])) --bytes[id];
  return bytes;
}

void Tokenizer::save(const fs::path& folder) const {
  make_folder(folder);
  if (is_byte_level()) {  // before the file that says that a tokenizer is there
    const auto text_of = [&](std::optional<int64_t> id) {
      return id ? Json(pieces()[static_cast<size_t>(*id)].text) : Json();
    };
    const Json names = {
        {"bos_token", text_of(bos_id())}, {"eos_token", text_of(eos_id())}, {"pad_token", text_of(pad_id())}};
    write_file_atomically(folder / kSpecialTokensFile, names.dump(2) + "\n");
  }
  write_file_atomically(folder / file_name(), model_bytes());
}

std::optional<fs::path> tokenizer_in(const fs::path& folder) {
  std::error_code error;
  for (const char* name : {"tokenizer.model", "tokenizer.json"})
    if (fs::exists(folder / name, error)) return folder / name;
  return std::nullopt;
}

}  // namespace coppice
