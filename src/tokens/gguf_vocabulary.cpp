// In: byte-level BPE becomes the text of a tokenizer.json, SentencePiece the bytes of a tokenizer.model, so that the
// rest of the program knows these two alone, with the fences of both. Out: llama.cpp's token types, and the name that
// it has for the pre-tokenizer.
#include "src/tokens/gguf_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tokens/gguf_pre_tokenizers.h"
#include "src/tokens/sentencepiece_model.h"
#include "src/tokens/tokenizer_json_file.h"
#include "src/tokens/utf8.h"

namespace coppice {

namespace {

using OrderedJson = nlohmann::ordered_json;
constexpr size_t kMaxTokens = size_t{1} << 20;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw UserError::bad_file(where, "tokenizer.ggml: " + what);
}

PieceType type_at(const GgufVocabulary& vocabulary, size_t id) {
  const int32_t type = vocabulary.token_types.empty() ? 1 : vocabulary.token_types[id];
  return type == 0 ? PieceType::normal : static_cast<PieceType>(type);
}

void check_tables(const GgufVocabulary& vocabulary, const std::string& where) {
  const size_t count = vocabulary.tokens.size();
  if (count == 0 || count > kMaxTokens) refuse(where, fmt::format("{} tokens, expected 1 to {}", count, kMaxTokens));
  if (!vocabulary.token_types.empty() && vocabulary.token_types.size() != count)
    refuse(where, fmt::format("{} token types for {} tokens", vocabulary.token_types.size(), count));
  for (size_t id = 0; id < vocabulary.token_types.size(); ++id)
    if (vocabulary.token_types[id] < 0 || vocabulary.token_types[id] > 6)
      refuse(where, fmt::format("token {} has type {}, expected 0 to 6", id, vocabulary.token_types[id]));
  for (const std::string& token : vocabulary.tokens)
    if (!is_valid_utf8(token)) refuse(where, fmt::format("the token '{}' is not valid UTF-8", printable(token)));
  for (const auto& id : {vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id})
    if (id && (*id < 0 || *id >= std::ssize(vocabulary.tokens)))
      refuse(where, fmt::format("the id {} of a special token, but there are {} tokens", *id, count));
  if (!vocabulary.eos_id) refuse(where, "eos_token_id is missing, which documents are separated by");
}

OrderedJson byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", use_regex}};
}

/// The steps as the tokenizers library writes them.
OrderedJson pre_tokenizer_json(const std::vector<SplitStep>& steps) {
  OrderedJson list = OrderedJson::array();
  const bool own_regex = steps.back().pattern == kGpt2Pattern;
  for (size_t i = 0; i + (own_regex ? 1 : 0) < steps.size(); ++i) {
    if (steps[i].pattern == "\\p{N}")
      list.push_back({{"type", "Digits"}, {"individual_digits", true}});
    else
      list.push_back(
          {{"type", "Split"}, {"pattern", {{"Regex", steps[i].pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  list.push_back(byte_level(own_regex));
  return list.size() == 1 ? list[0] : OrderedJson{{"type", "Sequence"}, {"pretokenizers", list}};
}

OrderedJson begin_with(const std::string& token, int64_t id) {
  const OrderedJson special{{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  const OrderedJson a{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, b{{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  OrderedJson processor{{"type", "TemplateProcessing"}};
  processor["single"] = OrderedJson::array({special, a});
  processor["pair"] = OrderedJson::array({special, a, special, b});
  processor["special_tokens"][token] = {
      {"id", token}, {"ids", OrderedJson::array({id})}, {"tokens", OrderedJson::array({token})}};
  return processor;
}

std::string byte_level_json(const GgufVocabulary& vocabulary, const GgufPreTokenizer& pre, const std::string& where) {
  OrderedJson added = OrderedJson::array(), merges = OrderedJson::array();
  OrderedJson::object_t vocab;  // appended to: its operator[] searches from the front
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const PieceType type = type_at(vocabulary, id);
    if (type == PieceType::unused) continue;  // rows beyond the tokenizer; in between, a hole
    const std::string& token = vocabulary.tokens[id];
    vocab.emplace_back(token, id);
    const bool special = type == PieceType::control || type == PieceType::unknown;
    if (special || type == PieceType::user_defined)
      added.push_back({{"id", id},
                       {"content", token},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", special}});
  }
  if (vocabulary.merges.size() > kMaxMerges)
    refuse(where, fmt::format("{} merges, expected at most {}", vocabulary.merges.size(), kMaxMerges));
  for (const std::string& merge : vocabulary.merges) {
    if (!is_valid_utf8(merge)) refuse(where, fmt::format("the merge '{}' is not valid UTF-8", printable(merge)));
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos)
      refuse(where, fmt::format("the merge '{}' has no space between two tokens", printable(merge)));
    merges.push_back(OrderedJson::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  OrderedJson json{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  json["added_tokens"] = std::move(added);
  json["normalizer"] = pre.nfc ? OrderedJson{{"type", "NFC"}} : OrderedJson();
  json["pre_tokenizer"] = pre_tokenizer_json(pre.steps);
  json["post_processor"] =
      vocabulary.add_bos.value_or(pre.add_bos) && vocabulary.bos_id
          ? begin_with(vocabulary.tokens[static_cast<size_t>(*vocabulary.bos_id)], *vocabulary.bos_id)
          : OrderedJson();
  json["decoder"] = byte_level(/*use_regex=*/true);
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},  // llama.cpp drops bytes that have no token
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", pre.ignore_merges}};
  json["model"]["vocab"] = std::move(vocab);
  json["model"]["merges"] = std::move(merges);
  return json.dump(1) + "\n";
}

Tokenizer byte_level_tokenizer(const GgufVocabulary& vocabulary, const std::string& where) {
  const std::string name = vocabulary.pre.empty() ? "default" : vocabulary.pre;  // as llama.cpp reads old files
  const GgufPreTokenizer* const pre = find_gguf_pre_tokenizer(name);
  if (pre == nullptr)
    refuse(where,
           fmt::format("the pre-tokenizer '{}' is not known, only {}; import the model's Hugging Face folder, whose "
                       "tokenizer.json says how text is cut",
                       printable(name), gguf_pre_tokenizer_names()));
  const SpecialTokens specials{.bos = {.names = {}, .id = vocabulary.bos_id},
                               .eos = {.names = {}, .id = vocabulary.eos_id},
                               .pad = {.names = {}, .id = vocabulary.pad_id}};
  return Tokenizer(read_tokenizer_json(byte_level_json(vocabulary, *pre, where), specials, where));
}

Tokenizer sentencepiece_tokenizer(const GgufVocabulary& vocabulary, const std::string& where) {
  if (vocabulary.scores.size() != vocabulary.tokens.size())
    refuse(where, fmt::format("{} scores for {} tokens, which decide what is merged", vocabulary.scores.size(),
                              vocabulary.tokens.size()));
  SentencePieceParts parts{.pieces = {},
                           .add_dummy_prefix = vocabulary.add_space_prefix.value_or(true),
                           .bos_id = vocabulary.bos_id,
                           .eos_id = vocabulary.eos_id,
                           .pad_id = vocabulary.pad_id};
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id)
    parts.pieces.push_back(
        {.text = vocabulary.tokens[id], .score = vocabulary.scores[id], .type = type_at(vocabulary, id)});
  return Tokenizer(read_sentencepiece(sentencepiece_bytes(parts), where));
}

std::string steps_text(const TokenizerJson& json) {
  std::string text;
  for (const SplitStep& step : json.steps)
    text += fmt::format("{}'{}'", text.empty() ? "" : ", then ", printable(step.pattern));
  return text.empty() ? "none" : text;
}

/// The row that cuts and merges as this tokenizer does, the one that normalises alike before others.
const GgufPreTokenizer& pre_tokenizer_of(const TokenizerJson& json, const std::string& where) {
  const GgufPreTokenizer* found = nullptr;
  for (const GgufPreTokenizer& row : gguf_pre_tokenizers()) {
    if (row.steps != json.steps || row.ignore_merges != json.ignore_merges || json.prefix_space) continue;
    if (found == nullptr || row.nfc == json.nfc) found = &row;
    if (row.nfc == json.nfc) break;
  }
  if (found == nullptr)
    throw UserError::recipe(
        where,
        fmt::format("llama.cpp has no name for a tokenizer with the regular expressions {}, ignore_merges {} and "
                    "add_prefix_space {} (known: {}); export as hf",
                    steps_text(json), json.ignore_merges, json.prefix_space, gguf_pre_tokenizer_names()));
  return *found;
}

void add_byte_level(GgufVocabulary& vocabulary, const Tokenizer& tokenizer, const std::string& where) {
  const SpecialTokens specials{.bos = {}, .eos = {.names = {}, .id = tokenizer.eos_id()}, .pad = {}};
  const TokenizerJson json = parse_tokenizer_json(tokenizer.model_bytes(), specials, where);
  vocabulary.model = "gpt2";
  vocabulary.pre = pre_tokenizer_of(json, where).name;
  vocabulary.add_space_prefix = false;
  for (const Merge& merge : json.merges) {
    const std::string &left = json.vocab[static_cast<size_t>(merge.left)],
                      &right = json.vocab[static_cast<size_t>(merge.right)];
    if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos)
      throw UserError::recipe(where,
                              fmt::format("the merge of '{}' and '{}' holds a space, which GGUF cannot say; export "
                                          "as hf",
                                          printable(left), printable(right)));
    vocabulary.merges.push_back(left + " " + right);
  }
}

}  // namespace

Tokenizer tokenizer_from_gguf(const GgufVocabulary& vocabulary, const std::string& where) {
  check_tables(vocabulary, where);
  if (vocabulary.model == "gpt2") return byte_level_tokenizer(vocabulary, where);
  if (vocabulary.model == "llama") return sentencepiece_tokenizer(vocabulary, where);
  refuse(where,
         fmt::format("a tokenizer of the model '{}' is not supported, expected llama (SentencePiece BPE) or gpt2 "
                     "(byte-level BPE)",
                     printable(vocabulary.model)));
}

GgufVocabulary gguf_vocabulary(const Tokenizer& tokenizer, bool add_bos, const std::string& where) {
  GgufVocabulary vocabulary{.model = "llama",
                            .pre = "default",
                            .bos_id = tokenizer.bos_id(),
                            .eos_id = tokenizer.eos_id(),
                            .unk_id = tokenizer.unk_id(),
                            .pad_id = tokenizer.pad_id(),
                            .add_bos = add_bos,
                            .add_eos = false,
                            .add_space_prefix = tokenizer.has_dummy_prefix()};
  for (const Piece& piece : tokenizer.pieces()) {
    vocabulary.tokens.push_back(piece.text);
    vocabulary.token_types.push_back(static_cast<int32_t>(piece.type));
    if (!tokenizer.is_byte_level()) vocabulary.scores.push_back(piece.score);
  }
  if (tokenizer.is_byte_level()) add_byte_level(vocabulary, tokenizer, where);
  return vocabulary;
}

}  // namespace coppice
