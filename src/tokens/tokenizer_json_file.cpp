#include "src/tokens/tokenizer_json_file.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <unordered_set>

#include "src/base/errors.h"
#include "src/tokens/sentencepiece_model.h"
#include "src/tokens/text_ids.h"

namespace coppice {

namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr uint64_t kMaxIds = uint64_t{1} << 20;
constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxSteps = 32;
constexpr const char* kOther = "; a tokenizer.model of the same model, where there is one, is read as well";

constexpr const char* kEndNames[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>"};
constexpr const char* kBeginNames[] = {"<|begin_of_text|>", "<s>"};
constexpr const char* kPadNames[] = {"<pad>", "<|pad|>"};

class Parser {
 public:
  Parser(const SpecialTokens& specials, const std::string& path) : specials_(specials), path_(path) {}

  TokenizerJson parse(std::string_view text) {
    simdjson::dom::parser parser;
    element root;
    simdjson::error_code error = parser.allocate(std::max<size_t>(text.size(), 64), kMaxDepth);
    if (error == simdjson::SUCCESS) error = parser.parse(text.data(), text.size()).get(root);
    if (error != simdjson::SUCCESS)
      fail(fmt::format("no JSON of at most {} levels: {}", kMaxDepth, simdjson::error_message(error)));
    check_keys(root, Level::file);
    const object top = object_of(root, "the file");
    read_model(object_of(need(top, "model"), "model"));
    if (const auto added = find(top, "added_tokens")) read_added(array_of(*added, "added_tokens"));
    if (json_.vocab.size() > 2 * ids_.size() + 1024)
      fail(fmt::format("ids up to {} for {} tokens: more holes than tokens", json_.vocab.size() - 1, ids_.size()));
    read_merges(object_of(need(top, "model"), "model"));
    if (const auto normalizer = find(top, "normalizer")) read_normalizer(object_of(*normalizer, "normalizer"));
    if (const auto pre = find(top, "pre_tokenizer")) read_pre_tokenizer(object_of(*pre, "pre_tokenizer"));
    if (const auto post = find(top, "post_processor")) read_post_processor(object_of(*post, "post_processor"));
    if (json_.byte_level) check_decoder(top);
    json_.bos_id = special(specials_.bos, kBeginNames);
    json_.pad_id = special(specials_.pad, kPadNames);
    json_.eos_id = special(specials_.eos, kEndNames);
    return std::move(json_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw UserError::bad_file(path_, "tokenizer.json: " + what); }
  [[noreturn]] void unsupported(const std::string& what, const std::string& expected) const {
    fail(fmt::format("{} is not supported, expected {}{}", what, expected, kOther));
  }

  // Access that names what is missing or of another type; null counts as absent.
  std::optional<element> find(const object& from, std::string_view key) const {
    element value;
    if (from.at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
    return value;
  }
  element need(const object& from, std::string_view key) const {
    const auto found = find(from, key);
    if (!found) fail(fmt::format("\"{}\" is missing", key));
    return *found;
  }
  object object_of(const element& value, std::string_view what) const {
    object result;
    if (value.get(result) != simdjson::SUCCESS) fail(fmt::format("{}: expected an object", what));
    return result;
  }
  array array_of(const element& value, std::string_view what) const {
    array result;
    if (value.get(result) != simdjson::SUCCESS) fail(fmt::format("{}: expected a list", what));
    return result;
  }
  std::string_view text_of(const element& value, std::string_view what) const {
    std::string_view result;
    if (value.get(result) != simdjson::SUCCESS) fail(fmt::format("{}: expected a text", what));
    return result;
  }
  bool flag(const object& from, std::string_view key, bool otherwise) const {
    const auto found = find(from, key);
    bool result = otherwise;
    if (found && found->get(result) != simdjson::SUCCESS) fail(fmt::format("{}: expected true or false", key));
    return result;
  }
  std::string_view text_at(const object& from, std::string_view key) const { return text_of(need(from, key), key); }
  size_t id_of(const element& value, std::string_view what) const {
    uint64_t id = 0;
    if (!value.is_uint64() || value.get(id) != simdjson::SUCCESS || id >= kMaxIds)
      fail(fmt::format("the id of {}: expected a whole number below {}", printable(what), kMaxIds));
    return id;
  }

  [[noreturn]] void fail_of_twice(std::string_view key) const {
    fail(fmt::format("the key \"{}\" appears twice in one object", printable(key.substr(0, 100))));
  }
  enum class Level { file, model, inside };
  /// No object has a key twice. The long parts of a model are checked as they are read.
  void check_keys(const element& value, Level level) const {
    if (value.is_array())
      for (const element part : array_of(value, "")) check_keys(part, Level::inside);
    if (!value.is_object()) return;
    std::unordered_set<std::string_view> keys;
    for (const auto field : object_of(value, "")) {
      if (!keys.insert(field.key).second) fail_of_twice(field.key);
      if (level == Level::model && (field.key == "vocab" || field.key == "merges")) continue;
      check_keys(field.value, level == Level::file && field.key == "model" ? Level::model : Level::inside);
    }
  }

  std::optional<int64_t> id_of_token(std::string_view token) const {
    const int32_t id = ids_.find(token, json_.vocab);
    return id < 0 ? std::nullopt : std::optional<int64_t>(id);
  }

  /// Whether the token is new.
  bool put(std::string_view token, size_t id) {
    const auto name = [&] { return printable(token.substr(0, 100)); };
    if (token.empty()) fail(fmt::format("the token with id {} is empty", id));
    if (token.size() > kMaxTokenBytes)
      fail(fmt::format("token '{}...' is longer than {} bytes", name(), kMaxTokenBytes));
    if (token.find('\0') != std::string_view::npos) fail(fmt::format("token '{}' contains NUL", name()));
    if (json_.vocab.size() <= id) json_.vocab.resize(id + 1);
    if (!json_.vocab[id].empty() && json_.vocab[id] != token)
      fail(fmt::format("the id {} has two tokens, '{}' and '{}'", id, printable(json_.vocab[id]), name()));
    const std::optional<int64_t> known = id_of_token(token);
    if (known && *known != static_cast<int64_t>(id))
      fail(fmt::format("the token '{}' has two ids, {} and {}", name(), *known, id));
    if (known) return false;
    json_.vocab[id] = std::string(token);
    ids_.add(token, static_cast<int32_t>(id));
    return true;
  }

  void read_model(const object& model) {
    if (const auto type = find(model, "type"); type && text_of(*type, "model.type") != "BPE")
      unsupported(fmt::format("a model of type '{}'", printable(text_of(*type, "model.type"))), "BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const auto given = find(model, key); given && !text_of(*given, key).empty())
        unsupported(fmt::format("model.{} '{}'", key, printable(text_of(*given, key))), "none");
    double dropout = 0;
    if (const auto given = find(model, "dropout"); given && (given->get(dropout) != simdjson::SUCCESS || dropout != 0))
      unsupported("model.dropout", "none");
    json_.fuse_unk = flag(model, "fuse_unk", false);
    json_.byte_fallback = flag(model, "byte_fallback", false);
    json_.ignore_merges = flag(model, "ignore_merges", false);
    const object vocab = object_of(need(model, "vocab"), "model.vocab");
    ids_.reserve(std::min<size_t>(vocab.size(), kMaxIds));
    for (const auto field : vocab)
      if (!put(field.key, id_of(field.value, field.key))) fail_of_twice(field.key);
    if (json_.vocab.empty()) fail("model.vocab is empty");
    if (const auto unk = find(model, "unk_token")) {
      json_.unk_id = id_of_token(text_of(*unk, "model.unk_token"));
      if (!json_.unk_id) fail("model.unk_token is not in model.vocab");
    }
  }

  void read_added(const array& added) {
    for (const element part : added) {
      const object token = object_of(part, "a token in added_tokens");
      const std::string_view content = text_at(token, "content");
      const size_t id = id_of(need(token, "id"), content);
      put(content, id);
      json_.added.push_back({.id = static_cast<int64_t>(id),
                             .content = std::string(content),
                             .special = flag(token, "special", false),
                             .single_word = flag(token, "single_word", false),
                             .lstrip = flag(token, "lstrip", false),
                             .rstrip = flag(token, "rstrip", false),
                             .normalized = flag(token, "normalized", true)});
    }
    std::ranges::sort(json_.added, {}, &AddedToken::id);
    const auto twice = std::ranges::adjacent_find(json_.added, {}, &AddedToken::id);
    if (twice != json_.added.end()) fail(fmt::format("added_tokens names '{}' twice", printable(twice->content)));
  }

  void read_merges(const object& model) {
    std::string joined;
    const array merges = array_of(need(model, "merges"), "model.merges");
    if (merges.size() > kMaxMerges) fail(fmt::format("more than {} merges", kMaxMerges));
    json_.merges.reserve(merges.size());
    json_.merge_table = BpeMerges(merges.size());
    size_t number = 0, made = 0;
    for (const element merge : merges) {
      ++number;
      std::string_view left, right;
      if (merge.is_array()) {
        const array pair = array_of(merge, "a merge");
        if (pair.size() != 2) fail(fmt::format("merge {}: expected two tokens", number));
        left = text_of(pair.at(0).value_unsafe(), "a merge"), right = text_of(pair.at(1).value_unsafe(), "a merge");
      } else {
        const std::string_view both = text_of(merge, "a merge");
        const size_t space = both.find(' ');
        if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos)
          fail(fmt::format("merge {}: '{}' is not two tokens with one space between them", number,
                           printable(both.substr(0, 100))));
        left = both.substr(0, space), right = both.substr(space + 1);
      }
      joined.assign(left).append(right);
      const auto id = [&](std::string_view token) {
        const int32_t found = ids_.find(token, json_.vocab);
        if (found < 0)
          fail(fmt::format("merge {} ('{}' and '{}'): '{}' is no token", number, printable(left.substr(0, 100)),
                           printable(right.substr(0, 100)), printable(token.substr(0, 100))));
        return found;
      };
      Merge ids{.left = id(left), .right = id(right), .result = -1};
      // Files list merges by what they make: the token of the one before, or the next token.
      if (made + 1 < json_.vocab.size() && json_.vocab[made] != joined) ++made;
      if (json_.vocab[made] != joined) made = static_cast<size_t>(id(joined));
      ids.result = static_cast<int32_t>(made);
      if (!json_.merge_table.add(ids))
        fail(fmt::format("merge {} ('{}' and '{}') appears twice", number, printable(left), printable(right)));
      json_.merges.push_back(ids);
    }
  }

  void read_normalizer(const object& normalizer) {
    const std::string_view type = text_at(normalizer, "type");
    if (type == "Sequence") {
      for (const element part : array_of(need(normalizer, "normalizers"), "normalizers"))
        read_normalizer(object_of(part, "a normalizer"));
    } else if (type == "NFC") {
      json_.nfc = true;
    } else if (type == "Prepend" && text_at(normalizer, "prepend") == kMetaspace && !json_.replaces_spaces) {
      json_.prepends_space = true;
    } else if (type == "Replace" && is_text(need(normalizer, "pattern"), " ") &&
               text_at(normalizer, "content") == kMetaspace) {
      json_.replaces_spaces = true;
    } else {
      unsupported(fmt::format("the normalizer {}", printable(simdjson::minify(normalizer).substr(0, 200))),
                  "none, NFC, or Prepend and Replace of spaces as SentencePiece does");
    }
  }

  bool is_text(const element& pattern, std::string_view text) const {
    const auto given = find(object_of(pattern, "pattern"), "String");
    return given && text_of(*given, "String") == text;
  }

  void add_step(std::string pattern, bool keeps_gaps) {
    if (json_.steps.size() == kMaxSteps) fail(fmt::format("pre_tokenizer: more than {} steps", kMaxSteps));
    json_.steps.push_back({std::move(pattern), keeps_gaps});
  }

  void read_pre_tokenizer(const object& pre) {
    const std::string_view type = text_at(pre, "type");
    if (type == "Sequence") {
      for (const element part : array_of(need(pre, "pretokenizers"), "pretokenizers"))
        read_pre_tokenizer(object_of(part, "a pre-tokenizer"));
      return;
    }
    if (json_.byte_level || json_.metaspace)
      unsupported(fmt::format("the pre-tokenizer '{}' behind ByteLevel or Metaspace", printable(type)),
                  "these to be the last");
    if (type == "ByteLevel") {
      json_.byte_level = true;
      json_.prefix_space = flag(pre, "add_prefix_space", true);
      if (json_.prefix_space && !json_.steps.empty())
        unsupported("add_prefix_space behind another pre-tokenizer", "it to be false");
      if (flag(pre, "use_regex", true)) add_step(kGpt2Pattern, /*keeps_gaps=*/true);
    } else if (type == "Digits") {
      add_step(flag(pre, "individual_digits", false) ? "\\p{N}" : "\\p{N}+", /*keeps_gaps=*/true);
    } else if (type == "Split") {
      read_split(pre);
    } else if (type == "Metaspace") {
      read_metaspace(pre);
    } else {
      unsupported(fmt::format("the pre-tokenizer '{}'", printable(type)), "ByteLevel, Split, Digits or Metaspace");
    }
  }

  void read_split(const object& split) {
    const std::string_view behavior = text_at(split, "behavior");
    const bool inverted = flag(split, "invert", false), isolated = behavior == "Isolated";
    if (!isolated && !(behavior == "Removed" && inverted))
      unsupported(
          fmt::format("Split with the behavior {}{}", printable(behavior), inverted ? "" : " and without invert"),
          "Isolated, or Removed with invert");
    const object pattern = object_of(need(split, "pattern"), "pattern");
    if (const auto regex = find(pattern, "Regex")) return add_step(std::string(text_of(*regex, "Regex")), isolated);
    std::string literal;
    for (const char c : text_at(pattern, "String")) {
      if (std::string_view("\\^$.|?*+()[]{}-#&~ ").find(c) != std::string_view::npos) literal += '\\';
      literal += c;
    }
    add_step(std::move(literal), isolated);
  }

  void read_metaspace(const object& metaspace) {
    if (const auto given = find(metaspace, "replacement"); given && text_of(*given, "replacement") != kMetaspace)
      unsupported(fmt::format("Metaspace with '{}'", printable(text_of(*given, "replacement"))), "U+2581");
    const auto scheme = find(metaspace, "prepend_scheme");
    const bool prepends =
        scheme ? text_of(*scheme, "prepend_scheme") != "never" : flag(metaspace, "add_prefix_space", true);
    if (prepends)  // SentencePiece prepends always: "x" and " x" have different ids there and the same ones here
      unsupported("Metaspace that prepends a space where a text begins with none", "prepend_scheme \"never\"");
    json_.metaspace = true;
    json_.metaspace_cuts = flag(metaspace, "split", true);
    json_.replaces_spaces = true;
  }

  /// Only what a template puts first is of interest: encode() adds nothing.
  void read_post_processor(const object& post) {
    const std::string_view type = text_at(post, "type");
    if (type == "Sequence") {
      for (const element part : array_of(need(post, "processors"), "processors"))
        read_post_processor(object_of(part, "a post-processor"));
    } else if (type == "TemplateProcessing") {
      const array single = array_of(need(post, "single"), "single");
      if (single.size() == 0) return;
      const auto special = find(object_of(single.at(0).value_unsafe(), "single"), "SpecialToken");
      if (!special) return;
      const std::string_view name = text_at(object_of(*special, "SpecialToken"), "id");
      json_.first_id = id_of_token(name);
      if (!json_.first_id) fail(fmt::format("post_processor: '{}' is no token", printable(name)));
    } else if (type != "ByteLevel") {
      unsupported(fmt::format("the post-processor '{}'", printable(type)), "TemplateProcessing or ByteLevel");
    }
  }

  void check_decoder(const object& top) const {
    const auto decoder = find(top, "decoder");
    const std::string_view type = decoder ? text_at(object_of(*decoder, "decoder"), "type") : "null";
    if (type != "ByteLevel") unsupported(fmt::format("the decoder '{}'", printable(type)), "ByteLevel");
  }

  template <size_t N>
  std::optional<int64_t> special(const SpecialToken& token, const char* const (&known)[N]) const {
    for (const std::string& name : token.names)
      if (const auto id = id_of_token(name)) return id;
    if (token.id && *token.id < std::ssize(json_.vocab) && !json_.vocab[static_cast<size_t>(*token.id)].empty())
      return token.id;
    for (const char* name : known)
      if (const auto id = id_of_token(name)) return id;
    return std::nullopt;
  }

  const SpecialTokens& specials_;
  const std::string& path_;
  TokenizerJson json_;
  TextIds ids_;  // of json_.vocab
};

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, const SpecialTokens& specials, const std::string& path) {
  TokenizerJson json = Parser(specials, path).parse(text);
  if (!json.eos_id)
    throw UserError::bad_file(
        path,
        "tokenizer.json: no token is known to end a text, which documents are separated by; name it as eos_token in a "
        "tokenizer_config.json beside it");
  return json;
}

std::unique_ptr<TokenizerState> read_tokenizer_json(std::string text, const SpecialTokens& specials,
                                                    const std::string& path) {
  TokenizerJson json = parse_tokenizer_json(text, specials, path);
  if (json.byte_level) return make_byte_level(std::move(text), std::move(json), path);
  return read_sentencepiece(sentencepiece_model(json, path), path);
}

}  // namespace coppice
