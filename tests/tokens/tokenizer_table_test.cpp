// Tokenizers as they come: pieces missing, added, renamed, renumbered, with and without a dummy prefix. All through
// loading, ids, text, shards and bytes.
#include <doctest/doctest.h>
#include <sentencepiece_processor.h>

#include <sstream>

#include "src/base/random.h"
#include "src/tokens/text_bytes.h"
#include "src/tokens/token_shard_writer.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/data/data_files.h"
#include "tests/tokens/tokenizer_models.h"
#include "tests/tokens/trained_table.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;
using test::lines_of_pages;
using test::load_bytes;
using test::table;
using test::TokenizerCase;

/// Lines of prose, and random strings of all that a special piece could stumble over.
const std::vector<std::string>& texts() {
  static const std::vector<std::string> result = [] {
    std::vector<std::string> all = lines_of_pages();
    const std::vector<std::string> parts = {" ",
                                            " ",
                                            "  ",
                                            "\n",
                                            "\n\n",
                                            "the",
                                            "of",
                                            "a b",
                                            "<|im_start|>",
                                            "[INST]",
                                            "[IMG]",
                                            "<unk>",
                                            "<s>",
                                            "</s>",
                                            "<pad>",
                                            "<eos>",
                                            "<UNK>",
                                            "<0x41>",
                                            "A",
                                            "7",
                                            "\xC3\xA9",
                                            "\xE4\xB8\xAD",
                                            "<unused0>",
                                            "[UNUSED_1]",
                                            "pieces",
                                            "tokenizer",
                                            "x",
                                            "\t",
                                            "\xF0\x9F\x8C\xB3"};
    for (uint64_t i = 0; i < 2000; ++i) {
      std::string text;
      const uint64_t length = random_bits(11, Purpose::test, i, 0) % 12;
      for (uint64_t k = 1; k <= length; ++k) text += parts[random_bits(11, Purpose::test, i, k) % parts.size()];
      all.push_back(text);
    }
    all.insert(all.end(), parts.begin(), parts.end());
    return all;
  }();
  return result;
}

std::string row_text(const Tokenizer& tokenizer, std::optional<int64_t> id) {
  return id ? tokenizer.pieces().at(static_cast<size_t>(*id)).text : "none";
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("tokenizer table: every row is loaded or refused by name") {
    for (const TokenizerCase& row : table()) {
      INFO(row.name);
      const Caught refusal = caught([&] { load_bytes(row.file.bytes()); });
      INFO(refusal.text);
      CHECK(refusal.code == (row.load_refusal.empty() ? 0 : 3));
      CHECK(refusal.says(row.load_refusal));
    }
  }

  TEST_CASE("tokenizer table: special pieces are found by what they are, and absent ones are absent") {
    struct Expected {
      const char* name;
      const char *unk, *bos, *eos, *pad;
    };
    for (const Expected& expected : {Expected{"ours", "<unk>", "<s>", "</s>", "<pad>"},
                                     {"llama", "<unk>", "<s>", "</s>", "none"},
                                     {"no_bos", "<unk>", "none", "</s>", "none"},
                                     {"gemma", "<unk>", "<bos>", "<eos>", "<pad>"},
                                     {"specials_last", "<unk>", "<bos>", "<eos>", "<pad>"},
                                     {"one_end", "<unk>", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"},
                                     {"unk_by_another_name", "<UNK>", "<s>", "</s>", "<pad>"}}) {
      INFO(std::string(expected.name));
      const Tokenizer tokenizer =
          load_bytes(std::ranges::find(table(), expected.name, &TokenizerCase::name)->file.bytes());
      CHECK(row_text(tokenizer, tokenizer.unk_id()) == expected.unk);
      CHECK(row_text(tokenizer, tokenizer.bos_id()) == expected.bos);
      CHECK(row_text(tokenizer, tokenizer.eos_id()) == expected.eos);
      CHECK(row_text(tokenizer, tokenizer.pad_id()) == expected.pad);
    }
  }

  TEST_CASE("tokenizer table: ids and text equal SentencePiece's, and text comes back") {
    for (const TokenizerCase& row : table()) {
      if (!row.load_refusal.empty()) continue;
      INFO(row.name);
      const Tokenizer tokenizer = load_bytes(row.file.bytes());
      CHECK(tokenizer.has_dummy_prefix() == row.file.add_dummy_prefix);
      sentencepiece::SentencePieceProcessor reference;
      REQUIRE(reference.LoadFromSerializedProto(row.file.bytes()).ok());
      size_t num_other_ids = 0, num_other_texts = 0, num_lost = 0;
      for (int round = 0; round < 2; ++round)  // the second time from memory
        for (const std::string& text : texts()) {
          const std::vector<int32_t> ids = tokenizer.encode(text);
          std::vector<int> expected;
          std::string expected_text;
          REQUIRE(reference.Encode(text, &expected).ok());
          REQUIRE(reference.Decode(expected, &expected_text).ok());
          num_other_ids += !std::ranges::equal(ids, expected);
          num_other_texts += tokenizer.decode(ids) != expected_text;
          num_lost += tokenizer.decode(ids) != text;
        }
      CHECK(num_other_ids == 0);
      CHECK(num_other_texts == 0);
      CHECK(num_lost == 0);
    }
  }

  TEST_CASE("tokenizer table: ids that no text gives are decoded as SentencePiece does") {
    for (const TokenizerCase& row : table()) {
      if (!row.load_refusal.empty()) continue;
      INFO(row.name);
      const Tokenizer tokenizer = load_bytes(row.file.bytes());
      sentencepiece::SentencePieceProcessor reference;
      REQUIRE(reference.LoadFromSerializedProto(row.file.bytes()).ok());
      size_t num_different = 0;
      for (uint64_t i = 0; i < 3000; ++i) {
        std::vector<int> ids(1 + i % 6);
        for (size_t k = 0; k < ids.size(); ++k) {
          const uint64_t bits =
              random_bits(5, Purpose::test, i, k);  // every other one from the beginning, where most special pieces are
          ids[k] =
              static_cast<int>((bits >> 8) % (bits % 2 == 0 ? 300 : static_cast<uint64_t>(tokenizer.vocab_size())));
        }
        std::string expected;
        REQUIRE(reference.Decode(ids, &expected).ok());
        num_different += tokenizer.decode({ids.begin(), ids.end()}) != expected;
      }
      CHECK(num_different == 0);
    }
  }

  TEST_CASE("tokenizer: text that is decoded in two parts is the text") {
    for (const char* name : {"ours", "llama", "user_defined_and_prefix"}) {
      INFO(std::string(name));
      const Tokenizer tokenizer = load_bytes(std::ranges::find(table(), name, &TokenizerCase::name)->file.bytes());
      for (const std::string text : {"The tree", " the tree  of  ", "  ", "of<|im_start|> the [INST]of", "7 x 11"}) {
        const std::vector<int32_t> ids = tokenizer.encode(text);
        for (size_t cut = 1; cut <= ids.size(); ++cut) {
          const auto middle = ids.begin() + static_cast<std::ptrdiff_t>(cut);
          CHECK(tokenizer.decode({ids.begin(), middle}) + tokenizer.decode_continuation({middle, ids.end()}) == text);
        }
      }
    }
  }

  TEST_CASE("tokenizer: a dummy prefix is part of the fingerprint, missing pieces are as well") {
    std::vector<std::string> fingerprints;
    for (const TokenizerCase& row : table())
      if (row.name != "self_test" && row.load_refusal.empty())
        fingerprints.push_back(load_bytes(row.file.bytes()).fingerprint());
    std::ranges::sort(fingerprints);
    CHECK(fingerprints.size() == 15);
    CHECK(std::ranges::adjacent_find(fingerprints) == fingerprints.end());
  }

  TEST_CASE("tokenizer table: token shards and the bytes behind their tokens are the text's own") {
    for (const TokenizerCase& row : table()) {
      if (!row.load_refusal.empty()) continue;
      INFO(row.name);
      const Tokenizer tokenizer = load_bytes(row.file.bytes());
      const ScratchFolder folder;
      TokenShardWriter writer(folder.path / "prose", "prose", tokenizer.vocab_size(), tokenizer.eos_id(),
                              tokenizer.fingerprint(), 1 << 20);
      uint64_t bytes = 0;
      for (size_t i = 0; i < texts().size(); ++i) {
        writer.add(i + 1, tokenizer.encode(texts()[i]), texts()[i].size());
        bytes += texts()[i].size();
      }
      writer.finish();
      const TokenShards shards(folder.path / "prose");
      CHECK(shards.eos_id() == tokenizer.eos_id());
      CHECK(shards.text_bytes() == bytes);
      std::vector<int64_t> tokens(shards.num_tokens() + 1,
                                  tokenizer.eos_id());  // what stands before the first document
      shards.read(0, 0, shards.num_tokens(), tokens.data() + 1);
      const std::span<const int64_t> all(tokens);
      CHECK(TextBytes(tokenizer).of(all.first(all.size() - 1), all.subspan(1)) == static_cast<double>(bytes));
    }
  }
}

}  // namespace coppice
