// Tokenizers in and out of the keys of a GGUF file; equality with llama.cpp is tested in tests/parity.
#include "src/tokens/gguf_vocabulary.h"

#include <doctest/doctest.h>

#include <functional>

#include "tests/caught.h"
#include "tests/tokens/byte_level_models.h"
#include "tests/tokens/trained_table.h"

namespace coppice {

namespace {

using test::byte_level_json;
using test::load_json;

constexpr const char* kTexts[] = {"hello world 123\n", "  it's \u4E2D\u6587 e\u0301 <|endoftext|> ", "",
                                  "l'HEURE 12'34"};

/// What a file of this tokenizer says, as a converter would write it.
GgufVocabulary byte_level_vocabulary(const char* pre) {
  GgufVocabulary vocabulary{.model = "gpt2", .pre = pre, .bos_id = 264, .eos_id = 264};
  const Json json = byte_level_json();
  vocabulary.tokens.resize(265);
  for (const auto& [token, id] : json["model"]["vocab"].items()) vocabulary.tokens[id] = token;
  vocabulary.tokens[264] = "<|endoftext|>";
  vocabulary.token_types.assign(265, 1);
  vocabulary.token_types[264] = 3;
  for (const std::string merge : json["model"]["merges"]) vocabulary.merges.push_back(merge);
  return vocabulary;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("gguf_vocabulary: byte-level in, the tokenizer.json that it stands for, and out again") {
    for (const char* pre : {"gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "stablelm2", "qwen35", "default"}) {
      CAPTURE(pre);
      const GgufVocabulary given = byte_level_vocabulary(pre);
      const Tokenizer tokenizer = tokenizer_from_gguf(given, "model.gguf");
      CHECK(tokenizer.file_name() == "tokenizer.json");
      CHECK(tokenizer.eos_id() == 264);
      CHECK(tokenizer.adds_bos() == (std::string(pre) == "llama-bpe"));  // where the file does not say
      const GgufVocabulary out = gguf_vocabulary(tokenizer, /*add_bos=*/false, "out");
      CHECK(out.model == "gpt2");
      CHECK(out.pre == pre);
      CHECK(out.tokens == given.tokens);
      CHECK(out.token_types == given.token_types);
      CHECK(out.merges == given.merges);
      CHECK(out.bos_id == 264);
      CHECK(out.eos_id == 264);
      CHECK_FALSE(out.unk_id);
      CHECK(out.add_bos == false);
      CHECK(out.scores.empty());
      const Tokenizer again = tokenizer_from_gguf(out, "model.gguf");
      CHECK(again.fingerprint() == tokenizer.fingerprint());
      for (const char* text : kTexts) CHECK(again.encode(text) == tokenizer.encode(text));
      const ScratchFolder folder;
      tokenizer.save(folder.path);
      CHECK(Tokenizer::load(folder.path / "tokenizer.json").fingerprint() == tokenizer.fingerprint());
    }
  }

  TEST_CASE("gguf_vocabulary: each pre-tokenizer cuts as it is told to") {
    const auto words = [](const char* pre, const char* text) {
      const Tokenizer tokenizer = tokenizer_from_gguf(byte_level_vocabulary(pre), "model.gguf");
      return tokenizer.encode(text);
    };
    using Ids = std::vector<int32_t>;
    CHECK(words("gpt-2", "12") == Ids{262});  // "1 2" is merged
    CHECK(words("llama-bpe", "12") == Ids{262});
    CHECK(words("smollm", "12") == Ids{'1', '2'});
    CHECK(words("qwen2", "12") == Ids{'1', '2'});
    CHECK(words("gpt-2", "1112") == Ids{'1', '1', 262});
    CHECK(words("llama-bpe", "1112") == Ids{'1', '1', '1', '2'});  // three digits a word
    CHECK(words("default", "1112") == Ids{'1', '1', '1', '2'});
    CHECK(words("qwen2", "e\u0301") == Ids{0xC3, 0xA9});
    CHECK(words("stablelm2", "e\u0301") == Ids{'e', 0xCC, 0x81});
    CHECK(tokenizer_from_gguf(byte_level_vocabulary(""), "f").fingerprint() ==
          tokenizer_from_gguf(byte_level_vocabulary("default"), "f").fingerprint());
    CHECK(tokenizer_from_gguf(byte_level_vocabulary("starcoder"), "f").fingerprint() ==
          tokenizer_from_gguf(byte_level_vocabulary("smollm"), "f").fingerprint());
  }

  TEST_CASE("gguf_vocabulary: types of tokens") {
    GgufVocabulary vocabulary = byte_level_vocabulary("gpt-2");
    for (const auto& [token, type] :
         {std::pair{"<tool>", 4}, {"[PAD266]", 5}, {"<pad>", 3}, {"[PAD268]", 5}, {"[PAD269]", 5}}) {
      vocabulary.tokens.emplace_back(token);
      vocabulary.token_types.push_back(type);
    }
    vocabulary.pad_id = 267;
    const Tokenizer tokenizer = tokenizer_from_gguf(vocabulary, "model.gguf");
    CHECK(tokenizer.vocab_size() == 268);  // rows behind the last token are padding
    CHECK(tokenizer.encode("a<tool><pad>") == std::vector<int32_t>{'a', 265, '<', 'p', 'a', 'd', '>'});
    CHECK(tokenizer.pad_id() == 267);
    const GgufVocabulary out = gguf_vocabulary(tokenizer, true, "out");
    vocabulary.tokens.resize(268);
    vocabulary.token_types.resize(268);
    CHECK(out.tokens == vocabulary.tokens);
    CHECK(out.token_types == vocabulary.token_types);
    CHECK(out.add_bos == true);
  }

  TEST_CASE("gguf_vocabulary: SentencePiece in and out") {
    for (const test::TokenizerCase& row : test::table()) {
      if (!row.load_refusal.empty()) continue;
      CAPTURE(row.name);
      const Tokenizer tokenizer = test::load_bytes(row.file.bytes());
      const GgufVocabulary out = gguf_vocabulary(tokenizer, false, "out");
      CHECK(out.model == "llama");
      CHECK(out.pre == "default");
      CHECK(out.add_space_prefix == row.file.add_dummy_prefix);
      const Tokenizer again = tokenizer_from_gguf(out, "model.gguf");
      CHECK(again.file_name() == "tokenizer.model");
      CHECK(again.fingerprint() == tokenizer.fingerprint());
      CHECK(again.bos_id() == tokenizer.bos_id());
      CHECK(again.pad_id() == tokenizer.pad_id());
      CHECK(test::load_bytes(again.model_bytes()).fingerprint() == tokenizer.fingerprint());
      for (const char* text : kTexts) CHECK(again.encode(text) == tokenizer.encode(text));
    }
  }
}

TEST_SUITE("faults") {
  TEST_CASE("gguf_vocabulary: tables that do not fit, and names that are not known") {
    const auto refuse = [](const GgufVocabulary& vocabulary, const std::string& part) {
      const Caught refusal = caught([&] { tokenizer_from_gguf(vocabulary, "model.gguf"); });
      INFO(part << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
      CHECK(refusal.says("model.gguf"));
    };
    const auto changed = [](const std::function<void(GgufVocabulary&)>& change) {
      GgufVocabulary vocabulary = byte_level_vocabulary("gpt-2");
      change(vocabulary);
      return vocabulary;
    };
    refuse(byte_level_vocabulary("kimi-k2"), "'kimi-k2' is not known, only gpt-2, smollm, llama-bpe");
    refuse(changed([](auto& v) { v.model = "bert"; }), "'bert' is not supported");
    refuse(changed([](auto& v) { v.tokens.clear(); }), "0 tokens");
    refuse(changed([](auto& v) { v.token_types.pop_back(); }), "264 token types for 265 tokens");
    refuse(changed([](auto& v) { v.token_types[3] = 7; }), "type 7");
    refuse(changed([](auto& v) { v.eos_id = 265; }), "there are 265 tokens");
    refuse(changed([](auto& v) { v.bos_id = -1; }), "the id -1");
    refuse(changed([](auto& v) { v.eos_id.reset(); }), "eos_token_id is missing");
    refuse(changed([](auto& v) { v.tokens[264] = "\xFF"; }), "not valid UTF-8");
    refuse(changed([](auto& v) { v.tokens[264] = v.tokens[1]; }), "has two ids, 1 and 264");
    refuse(changed([](auto& v) { v.merges[0] = "he"; }), "no space");
    refuse(changed([](auto& v) { v.merges[0] = "q u"; }), "is no token");
    refuse(changed([](auto& v) { v.model = "llama"; }), "0 scores for 265 tokens");
    refuse(changed([](auto& v) {
             v.model = "llama";
             v.scores.assign(265, 0);
           }),
           "0 unknown pieces");
  }

  TEST_CASE("gguf_vocabulary: a pre-tokenizer without a name is refused with what it is") {
    Json json = byte_level_json();
    json["model"]["ignore_merges"] = true;
    const Caught refusal = caught([&] { gguf_vocabulary(load_json(json), false, "formats"); });
    CHECK(refusal.code == 2);
    CHECK(refusal.says("formats"));
    CHECK(refusal.says("'s|'t|'re"));
    CHECK(refusal.says("ignore_merges true"));
    CHECK(refusal.says("llama-bpe"));
    json = byte_level_json();
    json["pre_tokenizer"]["add_prefix_space"] = true;
    CHECK(caught([&] { gguf_vocabulary(load_json(json), false, "formats"); }).says("add_prefix_space true"));
  }
}

}  // namespace coppice
