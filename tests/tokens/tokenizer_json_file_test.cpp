// What is read of a tokenizer.json and the files beside it, and what is refused by its name.
#include <doctest/doctest.h>

#include <algorithm>

#include "src/base/random.h"
#include "src/tokens/make_tokenizer.h"
#include "src/tokens/tokenizer.h"
#include "tests/caught.h"
#include "tests/tokens/byte_level_models.h"
#include "tests/tokens/trained_table.h"

namespace coppice {

namespace {

using test::added_token;
using test::byte_level_json;
using test::load_bytes;
using test::load_json;
using test::load_json_text;

const std::vector<Piece>& trained_pieces() { return test::table().front().file.pieces; }

/// The JSON with `value` at the place that a JSON pointer names.
Json with(Json json, const std::string& pointer, const Json& value) {
  json[Json::json_pointer(pointer)] = value;
  return json;
}

void refuse_text(const std::string& text, const std::string& part) {
  const Caught refusal = caught([&] { load_json_text(text); });
  INFO(part << ": " << refusal.text);
  CHECK(refusal.code == 3);
  CHECK(refusal.says(part));
  CHECK(refusal.text.find('\n') == std::string::npos);
  CHECK(refusal.says("tokenizer.json"));
}
void refuse(const Json& json, const std::string& part) { refuse_text(json.dump(), part); }

/// Llama 2's kind out of a model of ours: merges in the order of scores, every way to a piece.
Json sentencepiece_json(const std::vector<Piece>& pieces, bool prefix) {
  Json vocab = Json::object(), merges = Json::array(), added = Json::array();
  for (size_t id = 0; id < pieces.size(); ++id) {
    vocab[pieces[id].text] = id;
    if (pieces[id].type == PieceType::control || pieces[id].type == PieceType::unknown)
      added.push_back(added_token(static_cast<int>(id), pieces[id].text, true));
  }
  for (const auto& [left, right] : merge_list(pieces)) merges.push_back(left + " " + right);
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}};
  const Json both = {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "\u2581"}}, replace}}};
  return {{"added_tokens", added},
          {"normalizer", prefix ? both : replace},
          {"pre_tokenizer", nullptr},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", merges}}}};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("tokenizer.json: merges as texts and as pairs, defaults and empty affixes are one tokenizer") {
    const Json json = byte_level_json();
    Json pairs = Json::array();
    for (const std::string merge : json["model"]["merges"])
      pairs.push_back({merge.substr(0, merge.find(' ')), merge.substr(merge.find(' ') + 1)});
    const std::string fingerprint = load_json(json).fingerprint();
    CHECK(fingerprint.size() == 64);
    CHECK(load_json(with(json, "/model/merges", pairs)).fingerprint() == fingerprint);
    CHECK(load_json(with(json, "/model/end_of_word_suffix", "")).fingerprint() == fingerprint);
    CHECK(load_json_text(" \n" + json.dump(2)).fingerprint() == fingerprint);
    const Json split = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"},
           {"pattern", {{"Regex", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}}},
           {"behavior", "Isolated"},
           {"invert", false}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    CHECK(load_json(with(json, "/pre_tokenizer", split)).fingerprint() == fingerprint);
    const auto differs = [&](const Json& other) { CHECK(load_json(other).fingerprint() != fingerprint); };
    differs(with(json, "/normalizer", {{"type", "NFC"}}));
    differs(with(json, "/model/ignore_merges", true));
    differs(with(json, "/model/unk_token", "a"));
    differs(with(json, "/pre_tokenizer/add_prefix_space", true));
    differs(with(json, "/pre_tokenizer/use_regex", false));
    differs(with(json, "/added_tokens/0/lstrip", true));
    differs(with(json, "/added_tokens/1", added_token(265, "<x>", false)));
    std::vector<std::string> merges = json["model"]["merges"];
    std::swap(merges[0], merges[1]);
    differs(with(json, "/model/merges", merges));
  }

  TEST_CASE("tokenizer.json: what begins, ends and pads a text comes from the files beside it") {
    Json json = byte_level_json();
    int id = 265;
    for (const char* name : {"<s>", "</s>", "<|im_end|>", "<pad>"})
      json["added_tokens"].push_back(added_token(id++, name, true));
    const auto ids = [&](const std::vector<std::pair<std::string, Json>>& files) {
      const ScratchFolder folder;
      for (const auto& [name, content] : files) folder.write(name, content.dump());
      const Tokenizer tokenizer = Tokenizer::load(folder.write("tokenizer.json", json.dump()));
      return std::vector<int64_t>{tokenizer.bos_id().value_or(-1), tokenizer.eos_id(), tokenizer.pad_id().value_or(-1)};
    };
    using Expected = std::vector<int64_t>;
    CHECK(ids({}) == Expected{265, 264, 268});  // by known names
    CHECK(ids({{"tokenizer_config.json", {{"eos_token", "<|im_end|>"}, {"bos_token", nullptr}}}}) ==
          Expected{265, 267, 268});
    CHECK(ids({{"tokenizer_config.json", {{"eos_token", {{"content", "</s>"}}}}},
               {"special_tokens_map.json", {{"eos_token", "<|im_end|>"}, {"pad_token", "<|endoftext|>"}}}}) ==
          Expected{265, 266, 264});
    CHECK(ids({{"config.json", {{"eos_token_id", {266, 267}}, {"bos_token_id", 264}, {"pad_token_id", 5000}}}}) ==
          Expected{264, 266, 268});
    CHECK(ids({{"tokenizer_config.json", {{"eos_token", "<not there>"}}}, {"config.json", {{"eos_token_id", 267}}}}) ==
          Expected{265, 267, 268});
  }

  TEST_CASE("tokenizer.json: a copy keeps the file's bytes and what ends a text") {
    Json json = byte_level_json();
    json["added_tokens"].push_back(added_token(265, "<end>", true));
    const ScratchFolder from, to;
    from.write("tokenizer_config.json", R"({"eos_token":"<end>"})");
    const Tokenizer tokenizer = Tokenizer::load(from.write("tokenizer.json", json.dump(3)));
    CHECK(tokenizer.eos_id() == 265);
    CHECK_FALSE(tokenizer_in(to.path));
    tokenizer.save(to.path);
    CHECK(slurp(to.path / "tokenizer.json") == json.dump(3));
    const Tokenizer copy = Tokenizer::load(tokenizer_in(to.path).value());
    CHECK(copy.eos_id() == 265);
    CHECK(copy.fingerprint() == tokenizer.fingerprint());
    CHECK(copy.fingerprint() != load_json(json).fingerprint());  // there <|endoftext|> ends a text
    CHECK_FALSE(copy.pad_id());
  }

  TEST_CASE("tokenizer.json: the data of a run takes it over once, and says which size it has") {
    const ScratchFolder own, data;
    own.write("tokenizer_config.json", R"({"eos_token":"<|endoftext|>"})");
    const std::filesystem::path file = own.write("tokenizer.json", byte_level_json().dump());
    const Tokenizer theirs = Tokenizer::load(file);
    int asked = 0;
    const auto given = [&]() -> const Tokenizer& {
      ++asked;
      return theirs;
    };
    TokenizerOptions options{.vocab_size = 265, .path = file.string()};
    const std::string fingerprint = make_tokenizer(options, given, data.path / "tokenizer", {}).fingerprint();
    CHECK(fingerprint == theirs.fingerprint());
    std::filesystem::remove(file);
    CHECK(make_tokenizer(options, given, data.path / "tokenizer", {}).fingerprint() == fingerprint);
    CHECK(asked == 1);
    options.vocab_size = 266;
    const Caught refusal = caught([&] { make_tokenizer(options, given, data.path / "tokenizer", {}); });
    CHECK(refusal.code == 2);
    CHECK(refusal.says("tokenizer.vocab_size: got 266"));
  }

  TEST_CASE("tokenizer.json: the post-processor says whether BOS comes first") {
    const Json special = {{"SpecialToken", {{"id", "<|endoftext|>"}, {"type_id", 0}}}},
               sequence = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
    const Json bytes = {{"type", "ByteLevel"}, {"trim_offsets", true}};
    const auto adds_bos = [&](const Json& single) {
      const Json post = {{"type", "Sequence"},
                         {"processors", {bytes, {{"type", "TemplateProcessing"}, {"single", single}}}}};
      const ScratchFolder folder;
      folder.write("tokenizer_config.json", R"({"bos_token":"<|endoftext|>"})");
      return Tokenizer::load(folder.write("tokenizer.json", with(byte_level_json(), "/post_processor", post).dump()))
          .adds_bos();
    };
    CHECK(adds_bos({special, sequence}));
    CHECK_FALSE(adds_bos({sequence, special}));
    CHECK_FALSE(adds_bos(Json::array({sequence})));
  }

  TEST_CASE("tokenizer.json: digits, and splits that drop what does not match") {
    Json json = byte_level_json({"1 2"});
    const Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
    const auto ids = [&](const Json& first, const std::string& text) {
      return load_json(with(json, "/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {first, bytes}}}))
          .encode(text);
    };
    using Ids = std::vector<int32_t>;
    CHECK(ids({{"type", "Digits"}, {"individual_digits", true}}, "a12") == Ids{'a', '1', '2'});
    CHECK(ids({{"type", "Digits"}, {"individual_digits", false}}, "a12") == Ids{'a', 256});
    const auto split = [](const Json& pattern, const char* behavior, bool invert) {
      return Json{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}};
    };
    CHECK(ids(split({{"Regex", "[0-9]"}}, "Isolated", false), "12") == Ids{'1', '2'});
    CHECK(ids(split({{"Regex", "[0-9]+"}}, "Removed", true), "a12b") == Ids{256});
    CHECK(ids(split({{"String", "1."}}, "Isolated", false), "121.2") == Ids{256, '1', '.', '2'});
  }

  TEST_CASE("tokenizer.json of Llama 2's kind becomes the SentencePiece model that it was made of") {
    for (const bool prefix : {false, true}) {
      test::ModelFile file{.pieces = trained_pieces(), .add_dummy_prefix = prefix};
      const Tokenizer model = load_bytes(file.bytes());
      const Tokenizer json = load_json(sentencepiece_json(file.pieces, prefix));
      CHECK_FALSE(json.is_byte_level());
      CHECK(json.file_name() == "tokenizer.model");
      CHECK(json.fingerprint() == model.fingerprint());
      CHECK(json.has_dummy_prefix() == prefix);
      const ScratchFolder folder;
      json.save(folder.path);
      const Tokenizer again = Tokenizer::load(folder.path / "tokenizer.model");
      CHECK(again.fingerprint() == model.fingerprint());
      for (const std::string text : {"the cat sat on 12 mats\n", "  two  spaces ", "\u4E2D\u6587 <s> caf\u00E9", ""}) {
        CHECK(json.encode(text) == model.encode(text));
        CHECK(again.decode(json.encode(text)) == text);
      }
    }
  }
}

TEST_SUITE("faults") {
  TEST_CASE("tokenizer.json: what is broken is refused") {
    const Json json = byte_level_json();
    refuse_text("{\"model\": ", "no JSON");
    refuse_text("{\"model\": \"\xFF\"}", "no JSON");
    refuse_text("{}", "\"model\" is missing");
    refuse_text("{\"a\":1,\"a\":2}", "appears twice in one object");
    const auto behind = [&](const std::string& place, const std::string& more) {
      std::string text = json.dump();
      return text.insert(text.find(place) + place.size(), more);
    };
    refuse_text(behind("\"vocab\":{", "\"a\":97,"), "the key \"a\" appears twice in one object");
    refuse_text(behind("\"vocab\":{", "\"a\":300,"), "'a' has two ids, 300 and 97");
    refuse_text(behind("\"model\":{", "\"type\":\"BPE\","), "the key \"type\" appears twice in one object");
    refuse_text(behind("{", "\"x\":{\"model\":{\"vocab\":{\"a\":1,\"a\":1}}},"), "the key \"a\" appears twice");
    std::string many;
    for (size_t i = 0; i <= size_t{1} << 22; ++i) many += "0,";
    refuse_text(behind("\"merges\":[", many), "more than 4194304 merges");
    std::string deep = "{\"a\":";
    for (int i = 0; i < 70; ++i) deep += "[";
    refuse_text(deep + std::string(70, ']') + "}", "64 levels");
    refuse(with(json, "/model/vocab", Json::object()), "vocab is empty");
    refuse(with(json, "/model/vocab/a", -1), "whole number");
    refuse(with(json, "/model/vocab/a", 1.5), "whole number");
    refuse(with(json, "/model/vocab/a", 1 << 20), "below 1048576");
    refuse(with(json, "/model/vocab/a", 98), "two tokens");
    refuse(with(json, "/model/vocab/a", 700'000), "ids up to 700000 for 265 tokens");
    refuse(with(json, "/model/vocab/" + std::string(1025, 'x'), 300), "longer than 1024");
    refuse(with(json, "/added_tokens/0/content", ""), "is empty");
    refuse(with(json, "/added_tokens/0/content", std::string("a\0b", 3)), "NUL");
    refuse(with(json, "/added_tokens/0/id", 263), "two tokens");
    refuse(with(json, "/added_tokens/0/special", "yes"), "expected true or false");
    refuse(with(json, "/added_tokens/1", added_token(265, "<|endoftext|>", true)), "two ids");
    refuse(with(json, "/added_tokens/1", added_token(264, "<|endoftext|>", true)), "twice");
    refuse(with(json, "/model/merges/8", "h e"), "appears twice");
    refuse(with(json, "/model/merges/8", "q \u4E2D"), "is no token");
    refuse(with(json, "/model/merges/8", "q u"), "'qu' is no token");
    refuse(with(json, "/model/merges/8", "abc"), "one space");
    refuse(with(json, "/model/merges/8", "a b c"), "one space");
    refuse(with(json, "/model/merges/8", Json::array({"a"})), "two tokens");
    refuse(with(json, "/model/merges/8", 7), "expected a text");
    refuse(with(json, "/model/merges", "h e"), "expected a list");
    refuse(with(json, "/model/unk_token", "<unk>"), "unk_token is not in model.vocab");
    refuse(with(json, "/added_tokens", Json::array()), "no token is known to end a text");
    refuse(with(json, "/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", 1}}), "expected a list");
    Json unended =
        with(json, "/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}});
    unended["pre_tokenizer"] = {{"type", "Sequence"},
                                {"pretokenizers", {unended["pre_tokenizer"], json["pre_tokenizer"]}}};
    refuse(unended, "cannot be compiled");
    const ScratchFolder folder;
    folder.write("tokenizer_config.json", "{broken");
    CHECK(caught([&] { Tokenizer::load(folder.write("tokenizer.json", json.dump())); }).says("tokenizer_config.json"));
    folder.write("tokenizer_config.json", R"({"eos_token":"hello"})");
    CHECK(caught([&] { Tokenizer::load(folder.path / "tokenizer.json"); }).says("is made by text itself"));
  }

  TEST_CASE("tokenizer.json: what is not supported is refused by its name, with what would do") {
    const Json json = byte_level_json();
    refuse(with(json, "/model/type", "Unigram"), "a model of type 'Unigram'");
    refuse(with(json, "/model/type", "WordPiece"), "expected BPE");
    refuse(with(json, "/model/dropout", 0.1), "model.dropout");
    refuse(with(json, "/model/continuing_subword_prefix", "##"), "continuing_subword_prefix '##'");
    refuse(with(json, "/normalizer", {{"type", "Lowercase"}}), "Lowercase");
    refuse(with(json, "/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", " "}}}, {"content", "\u2581"}}),
           "Replace");
    refuse(with(json, "/pre_tokenizer", {{"type", "Whitespace"}}), "the pre-tokenizer 'Whitespace'");
    refuse(with(json, "/pre_tokenizer",
                {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "MergedWithNext"}}),
           "MergedWithNext");
    refuse(
        with(json, "/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "\u2581"}, {"prepend_scheme", "first"}}),
        "prepend_scheme \"never\"");
    refuse(with(json, "/pre_tokenizer",
                {{"type", "Sequence"}, {"pretokenizers", {json["pre_tokenizer"], {{"type", "Digits"}}}}}),
           "behind ByteLevel");
    refuse(with(json, "/post_processor", {{"type", "BertProcessing"}}), "BertProcessing");
    refuse(with(json, "/decoder", {{"type", "WordPiece"}}), "the decoder 'WordPiece'");
    refuse(with(json, "/decoder", nullptr), "the decoder 'null'");
    refuse(with(json, "/pre_tokenizer", nullptr), "byte_fallback is off");
    CHECK(caught([] { load_json_text("GGUF\x03"); }).says("SentencePiece"));
  }

  TEST_CASE("tokenizer.json of Llama 2's kind: what no SentencePiece model gives the ids of is refused") {
    const Json json = sentencepiece_json(trained_pieces(), false);
    CHECK(load_json(json).vocab_size() == std::ssize(trained_pieces()));
    refuse(with(json, "/normalizer", nullptr), "no normalizer writes U+2581");
    refuse(with(json, "/model/unk_token", nullptr), "unk_token is missing");
    refuse(with(json, "/model/ignore_merges", true), "ignore_merges");
    Json fewer = json, apart = json;
    fewer["model"]["merges"].erase(3);
    refuse(fewer, "ways to join");
    const size_t count = apart["model"]["merges"].size();
    for (size_t i = 0; i + 1 < count; ++i) {  // the first piece that two merges make: put one of them at the end
      const auto joined = [&](size_t at) {
        std::string text = apart["model"]["merges"][at];
        return text.erase(text.find(' '), 1);
      };
      if (joined(i) != joined(i + 1)) continue;
      const Json moved = apart["model"]["merges"][i];
      apart["model"]["merges"].erase(i);
      apart["model"]["merges"].push_back(moved);
      break;
    }
    refuse(apart, "do not stand together");
    Json user = json;
    user["normalizer"] = sentencepiece_json(trained_pieces(), true)["normalizer"];
    user["added_tokens"].push_back(added_token(static_cast<int>(trained_pieces().size()), "<tool>", false));
    refuse(user, "the added token '<tool>'");
  }

  TEST_CASE("tokenizer.json: mutated files load or are refused, never more") {
    const std::string text = byte_level_json().dump();
    size_t num_refused = 0;
    for (uint64_t i = 0; i < 400; ++i) {
      std::string damaged = text;
      for (uint64_t k = 0; k <= i % 3; ++k)
        damaged[random_bits(5, Purpose::test, i, 2 * k) % damaged.size()] =
            static_cast<char>(random_bits(5, Purpose::test, i, 2 * k + 1));
      try {
        const Tokenizer tokenizer = load_json_text(damaged);
        CHECK(tokenizer.decode(tokenizer.encode("the cat sat on 12 mats\n")).size() <= 30);
      } catch (const UserError& error) {
        ++num_refused;
        CHECK(error.code() == ExitCode::bad_file);
      }
    }
    CHECK(num_refused > 100);
  }
}

}  // namespace coppice
