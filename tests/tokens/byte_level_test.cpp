// Byte-level BPE against rules worked out by hand and a merge loop written anew; equality with the tokenizers library
// and with llama.cpp is tested in tests/parity.
#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include "src/base/random.h"
#include "src/tokens/bpe_merges.h"
#include "src/tokens/regex_split.h"
#include "src/tokens/text_bytes.h"
#include "src/tokens/tokenizer.h"
#include "tests/caught.h"
#include "tests/tokens/byte_level_models.h"

namespace coppice {

namespace {

using test::added_token;
using test::byte_level_json;
using test::load_json;
using Ids = std::vector<int32_t>;

std::vector<std::string> pieces_of(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::string> names;
  for (const int32_t id : tokenizer.encode(text)) names.push_back(tokenizer.pieces()[static_cast<size_t>(id)].text);
  return names;
}

using Names = std::vector<std::string>;

std::vector<std::string> parts_of(const std::vector<SplitStep>& steps, const std::string& text) {
  const RegexSplitter splitter(steps, "steps");
  RegexSplitter::Scratch scratch;
  std::vector<std::string> parts;
  splitter.split(text, scratch, [&](std::string_view part) { parts.emplace_back(part); });
  return parts;
}

/// The lowest rank, of its places the leftmost, until nothing joins: by looking at all of them every time.
Ids merged_slowly(Ids ids, const std::vector<Merge>& merges) {
  for (;;) {
    size_t best_rank = merges.size(), best = 0;
    for (size_t at = 0; at + 1 < ids.size(); ++at)
      for (size_t rank = 0; rank < best_rank; ++rank)
        if (merges[rank].left == ids[at] && merges[rank].right == ids[at + 1]) {
          best_rank = rank;
          best = at;
        }
    if (best_rank == merges.size()) return ids;
    ids[best] = merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("byte-level: words are cut, bytes are merged by rank, text comes back") {
    const Tokenizer tokenizer = load_json(byte_level_json());
    CHECK(tokenizer.is_byte_level());
    CHECK(tokenizer.file_name() == "tokenizer.json");
    CHECK(tokenizer.vocab_size() == 265);
    CHECK(tokenizer.eos_id() == 264);
    CHECK_FALSE(tokenizer.unk_id());
    CHECK_FALSE(tokenizer.bos_id());
    CHECK_FALSE(tokenizer.pad_id());
    CHECK_FALSE(tokenizer.adds_bos());
    CHECK(pieces_of(tokenizer, "hello world") == Names{"hello", "\u0120wo", "r", "l", "d"});
    CHECK(pieces_of(tokenizer, "hello") == Names{"hello"});
    CHECK(pieces_of(tokenizer, "12 3x") == Names{"12", "\u0120", "3", "x"});
    // Of two spaces before a word the last belongs to the word, and a run at the end stays together.
    CHECK(pieces_of(tokenizer, "a   wo  ") == Names{"a", "\u0120\u0120", "\u0120wo", "\u0120\u0120"});
    CHECK(tokenizer.encode("").empty());
    CHECK(tokenizer.encode("\xC3\xA9\n") == Ids{0xC3, 0xA9, 0x0A});
    for (const std::string text : {"hello world", " a\t\n\n  b ", "\u4E2D\U0001F600", "<|endoftext|> it's 1234 we'll"})
      CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }

  TEST_CASE("byte-level: control names are text unless they are asked for; other added tokens are always found") {
    Json json = byte_level_json();
    json["added_tokens"].push_back(added_token(265, "<think>", false));
    json["added_tokens"].push_back(added_token(266, "<think>er", false));
    const Tokenizer tokenizer = load_json(json);
    const Ids ids = tokenizer.encode("a<|endoftext|>b");
    CHECK(ids.size() == 15);
    CHECK(std::ranges::find(ids, 264) == ids.end());
    CHECK(tokenizer.encode_with_specials("a<|endoftext|>b") == Ids{'a', 264, 'b'});
    CHECK(tokenizer.encode("a<think>b") == Ids{'a', 265, 'b'});
    CHECK(tokenizer.encode("<think>er<think>e") == Ids{266, 265, 'e'});  // the longest of those that begin there
    CHECK(tokenizer.decode({'a', 264, 265, 'b'}) == "a<think>b");        // control pieces stand for no text
    CHECK(tokenizer.pieces()[264].type == PieceType::control);
    CHECK(tokenizer.pieces()[265].type == PieceType::user_defined);
  }

  TEST_CASE("byte-level: flags of added tokens") {
    Json json = byte_level_json();
    const auto add = [&](int id, const char* content, const char* flag) {
      Json token = added_token(id, content, false);
      token[flag] = true;
      json["added_tokens"].push_back(token);
    };
    add(265, "[L]", "lstrip");
    add(266, "[R]", "rstrip");
    add(267, "word", "single_word");
    const Tokenizer tokenizer = load_json(json);
    CHECK(tokenizer.encode("a \t[L] b") == Ids{'a', 265, ' ', 'b'});
    CHECK(tokenizer.encode("a [R] \u2003b") == Ids{'a', ' ', 266, 'b'});
    CHECK(tokenizer.encode("word,word") == Ids{267, ',', 267});
    CHECK(tokenizer.encode("words") == Ids{'w', 'o', 'r', 'd', 's'});
    CHECK(tokenizer.encode("\u00E9word") == Ids{0xC3, 0xA9, 'w', 'o', 'r', 'd'});
    CHECK(tokenizer.encode("_word") == Ids{'_', 'w', 'o', 'r', 'd'});
  }

  TEST_CASE("byte-level: NFC, and tokens that are looked for in the normalised text") {
    Json json = byte_level_json();
    json["normalizer"] = {{"type", "NFC"}};
    Json token = added_token(265, "\u00E9t\u00E9", false);
    token["normalized"] = true;
    json["added_tokens"].push_back(token);
    const Tokenizer tokenizer = load_json(json);
    CHECK(tokenizer.encode("e\u0301") == Ids{0xC3, 0xA9});
    CHECK(tokenizer.encode("e\u0301te\u0301") == Ids{265});
    CHECK(tokenizer.encode("\u1112\u1161\u11AB") == Ids{0xED, 0x95, 0x9C});  // jamo to a syllable
    CHECK(load_json(byte_level_json()).encode("e\u0301") == Ids{'e', 0xCC, 0x81});
  }

  TEST_CASE("byte-level: a space before the text, where it has none") {
    Json json = byte_level_json();
    json["pre_tokenizer"]["add_prefix_space"] = true;
    const Tokenizer tokenizer = load_json(json);
    CHECK(tokenizer.has_dummy_prefix());
    CHECK(pieces_of(tokenizer, "wo") == Names{"\u0120wo"});
    CHECK(pieces_of(tokenizer, " wo") == Names{"\u0120wo"});
    CHECK(tokenizer.decode(tokenizer.encode("wo hello")) == "wo hello");
    CHECK(tokenizer.decode_continuation(tokenizer.encode("wo")) == " wo");
    CHECK(tokenizer.piece_bytes(/*first=*/false)[261] == 3);
    CHECK(tokenizer.piece_bytes(/*first=*/true)[261] == 2);
  }

  TEST_CASE("byte-level: bytes without a token are dropped, or unknown") {
    Json json = byte_level_json();
    json["model"]["vocab"].erase("z");
    const Tokenizer dropping = load_json(json);  // 'z' left a hole
    CHECK(dropping.encode("azzb") == Ids{'a', 'b'});
    CHECK(dropping.pieces()['z'].type == PieceType::unused);
    CHECK(dropping.vocab_size() == 265);
    json["model"]["unk_token"] = "?";
    CHECK(load_json(json).encode("azzb") == Ids{'a', '?', '?', 'b'});
    json["model"]["fuse_unk"] = true;
    const Tokenizer fusing = load_json(json);
    CHECK(fusing.encode("azzbz") == Ids{'a', '?', 'b', '?'});
    CHECK(fusing.unk_id() == '?');
  }

  TEST_CASE("byte-level: ignore_merges takes a whole word that is a token") {
    Json json = byte_level_json({"h e", "l o", "l lo", "hel lo", "he l"});  // "hello" needs "hel", made too late
    CHECK(pieces_of(load_json(json), "hello") == Names{"he", "llo"});
    json["model"]["ignore_merges"] = true;
    CHECK(pieces_of(load_json(json), "hello") == Names{"hello"});
    CHECK(pieces_of(load_json(json), "hellohello") == Names{"he", "llo", "he", "llo"});
  }

  TEST_CASE("byte-level: bytes that are no UTF-8 become U+FFFD, both ways") {
    const Tokenizer tokenizer = load_json(byte_level_json());
    CHECK(tokenizer.encode("a\xFF") == tokenizer.encode("a\uFFFD"));
    CHECK(tokenizer.encode("\xE4\xB8") == tokenizer.encode("\uFFFD"));  // one for a character that breaks off
    CHECK(tokenizer.encode("\xE4(\xC0\x80") == tokenizer.encode("\uFFFD(\uFFFD\uFFFD"));
    CHECK(tokenizer.decode({0xE4, 0xB8, 'x', 0xFF}) == "\uFFFDx\uFFFD");
    CHECK(tokenizer.decode({0xE4, 0xB8, 0xAD}) == "\u4E2D");
  }

  TEST_CASE("byte-level: bytes of pieces count text alone") {
    Json json = byte_level_json();
    json["added_tokens"].push_back(added_token(265, "\u4E2D!", false));
    const Tokenizer tokenizer = load_json(json);
    const std::vector<int64_t> bytes = tokenizer.piece_bytes(/*first=*/false);
    CHECK(bytes[0xE4] == 1);
    CHECK(bytes[259] == 5);  // hello
    CHECK(bytes[264] == 0);
    CHECK(bytes[265] == 4);
    const std::vector<int64_t> ids = {264, 259, 261}, next = {259, 261, -1};
    CHECK(TextBytes(tokenizer).of(ids, next) == 5 + 3);
  }

  TEST_CASE("byte-level: merges equal a loop that looks at all of them, short and long") {
    for (uint64_t problem = 0; problem < 40; ++problem) {
      const auto draw = [&](uint64_t i, uint64_t k) { return random_bits(17, Purpose::test, problem, 64 * i + k); };
      std::vector<Merge> merges;
      int32_t next = 4;
      for (uint64_t k = 0; k < 24; ++k) {
        const Merge merge{.left = static_cast<int32_t>(draw(k, 0) % static_cast<uint64_t>(next)),
                          .right = static_cast<int32_t>(draw(k, 1) % static_cast<uint64_t>(next)),
                          .result = next};
        if (std::ranges::any_of(merges, [&](const Merge& m) { return m.left == merge.left && m.right == merge.right; }))
          continue;
        merges.push_back(merge);
        ++next;
      }
      std::ranges::sort(merges, {}, [&](const Merge& m) {
        return random_bits(18, Purpose::test, problem, static_cast<uint64_t>(m.result));
      });
      BpeMerges table(merges.size());
      for (const Merge& merge : merges) CHECK(table.add(merge));
      CHECK_FALSE(table.add(merges.back()));
      BpeMerges::Scratch scratch;
      for (const size_t length : {1, 2, 5, 63, 64, 65, 300}) {
        Ids ids;
        for (size_t i = 0; i < length; ++i) ids.push_back(static_cast<int32_t>(draw(1000 + i, length) % 4));
        const Ids expected = merged_slowly(ids, merges);
        table.apply(ids, scratch);
        CHECK(ids == expected);
      }
    }
  }

  TEST_CASE("byte-level: no time that grows with the square of a word") {
    std::vector<std::string> doublings = {"a a"};
    for (std::string run = "aa"; run.size() < 64; run += run) doublings.push_back(run + " " + run);
    const Tokenizer tokenizer = load_json(byte_level_json(doublings));
    const Ids ids = tokenizer.encode(std::string(200'001, 'a'));
    CHECK(ids.size() == 200'000 / 64 + 1);
    const std::string spaces(200'000, ' ');
    CHECK(tokenizer.decode(tokenizer.encode(spaces + "x")) == spaces + "x");
  }

  TEST_CASE("byte-level: several threads encode at once") {
    const Tokenizer tokenizer = load_json(byte_level_json());
    std::vector<Ids> results(4);
    std::vector<std::thread> threads;
    for (Ids& result : results)
      threads.emplace_back([&] {
        for (int i = 0; i < 300; ++i)
          for (const int32_t id : tokenizer.encode("hello world " + std::to_string(i))) result.push_back(id);
      });
    for (std::thread& thread : threads) thread.join();
    for (const Ids& result : results) CHECK(result == results[0]);
    CHECK(results[0].size() > 1500);
  }

  TEST_CASE("regex_split: parts cover the text, each step cuts the parts of the one before") {
    CHECK(parts_of({{kGpt2Pattern}}, "It's  9 m\u00E9t\u00E8res!!\n") ==
          Names{"It", "'s", " ", " 9", " m\u00E9t\u00E8res", "!!", "\n"});
    CHECK(parts_of({{"\\p{N}"}, {kGpt2Pattern}}, "a 12b") == Names{"a", " ", "1", "2", "b"});
    CHECK(parts_of({{"b+"}}, "abbcb") == Names{"a", "bb", "c", "b"});
    CHECK(parts_of({{"b+", /*keeps_gaps=*/false}}, "abbcb") == Names{"bb", "b"});
    CHECK(parts_of({{"(?=b)"}}, "abab") == Names{"a", "ba", "b"});
    CHECK(parts_of({}, "as it is") == Names{"as it is"});
    CHECK(parts_of({{"(?i:'s)|\\s+$"}}, "x'S \ny") == Names{"x", "'S", " ", "\ny"});  // $ stands at every line
    // U+180E is no white space to Oniguruma, marks belong to words.
    CHECK(parts_of({{"\\s+"}}, "a\u180Eb\u2003c") == Names{"a\u180Eb", "\u2003", "c"});
    CHECK(parts_of({{"[^\\s]+"}}, "a\u180Eb c") == Names{"a\u180Eb", " ", "c"});
    CHECK(parts_of({{"\\w+"}}, "e\u0301 \u00B2") == Names{"e\u0301", " \u00B2"});
    CHECK(parts_of({{"[\\]\\[x]+"}}, "a[x]b") == Names{"a", "[x]", "b"});
    CHECK(parts_of({{"\\u4e2d"}}, "a\u4E2D") == Names{"a", "\u4E2D"});
  }
}

TEST_SUITE("faults") {
  TEST_CASE("regex_split: what PCRE2 reads otherwise, cannot compile or does not end is refused") {
    const auto refuse = [](const std::string& pattern, const std::string& part) {
      const Caught refusal = caught([&] { parts_of({{pattern}}, "text"); });
      INFO(pattern << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
    };
    refuse("[a-z&&[^b]]", "inside brackets");
    refuse("[[a]b]", "brackets inside brackets");
    refuse("\\bword", "\\b");
    refuse("a\\h", "\\h");
    refuse("(a)\\1", "\\1");
    refuse("(?m:a)", "group (?m:");
    refuse("(?<name>a)", "group");
    refuse("(*VERB)", "(*");
    refuse("[\\S]", "\\S inside brackets");
    refuse("(", "cannot be compiled");
    refuse("a{99999}", "cannot be compiled");
    refuse("\\", "backslash");
    const Caught endless = caught([] { parts_of({{"(a+)+[^a]"}}, std::string(40, 'a')); });
    CHECK(endless.code == 3);
    CHECK(endless.says("does not end on a text of 40 bytes"));
  }
}

}  // namespace coppice
