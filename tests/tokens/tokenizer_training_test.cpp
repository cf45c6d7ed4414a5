// Training on whatever a corpus holds: words longer than the library can take, scripts without spaces, single
// characters, vocabularies too large or too small.
#include <doctest/doctest.h>

#include "src/base/random.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/data/data_files.h"

namespace coppice {

namespace {

constexpr const char* kBase64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `length` characters, each `bytes` long, drawn from `alphabet`.
std::string random_text(const std::string& alphabet, size_t bytes, size_t length) {
  std::string text;
  for (uint64_t i = 0; i < length; ++i)
    text += alphabet.substr(random_bits(9, Purpose::test, length, i) % (alphabet.size() / bytes) * bytes, bytes);
  return text;
}

std::string repeated(const std::string& text, size_t times) {
  std::string result;
  for (size_t i = 0; i < times; ++i) result += text;
  return result;
}

Tokenizer train(int64_t vocab_size, const std::vector<std::string>& texts, double character_coverage = 1.0) {
  size_t i = 0;
  const std::string model =
      train_tokenizer({.vocab_size = vocab_size, .character_coverage = character_coverage}, [&](std::string& text) {
        if (i == texts.size()) return false;
        text = texts[i++];
        return true;
      });
  const ScratchFolder folder;
  return Tokenizer::load(folder.write("tokenizer.model", model));
}

struct Corpus {
  const char* name;
  std::vector<std::string> texts;
  int64_t vocab_size;
  int64_t long_words = 0, dropped_symbols = 0;  // where it is cut for the trainer
};

std::vector<Corpus> corpora() {
  const std::string ideographs = [] {
    std::string all;
    for (uint32_t c = 0x4E00; c < 0x4E00 + 500; ++c)
      all += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
              static_cast<char>(0x80 | (c & 63))};
    return all;
  }();
  std::vector<std::string> single;
  for (int i = 0; i < 3000; ++i) single.emplace_back(1, static_cast<char>('a' + i % 26));
  return {
      {"base64 in one line", {random_text(kBase64, 1, 200'000)}, 600, 1},
      {"base64 in a line of words",
       {"the picture " + random_text(kBase64, 1, 40'000) + " and " + random_text(kBase64, 1, 50'000) + " are"},
       600,
       2},
      {"one letter", {std::string(400'000, 'a')}, 264, 1},
      {"two letters", {repeated("ab", 35'000)}, 266, 1},
      {"spaces", {std::string(70'000, ' ')}, 264, 1},
      {"U+2581", {repeated("\xE2\x96\x81", 40'000)}, 264, 1},
      {"Chinese without a space or a newline", {random_text(ideographs, 3, 70'000)}, 900, 1},
      {"Thai",
       {random_text("\xE0\xB8\x81\xE0\xB8\x82\xE0\xB8\x84\xE0\xB8\x87\xE0\xB8\x88\xE0\xB9\x80", 3, 40'000)},
       300,
       1},
      {"emoji", {random_text("\xF0\x9F\x98\x80\xF0\x9F\x98\x81\xF0\x9F\x98\x82", 4, 33'000)}, 290, 1},
      {"single characters", single, 286},
      {"NUL and U+2585", {std::string("ab\0ab", 5), "ab\xE2\x96\x85 ab \xE2\x96\x85"}, 264, 0, 3},
      {"noncharacters", {repeated("x\xEF\xBF\xBF\xEF\xB7\x90\xF4\x8F\xBF\xBF y", 50)}, 266},
      {"control names", {repeated("a<s>b</s> <pad><unk>", 50)}, 263},
  };
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "tokenizer training: text of every kind is trained on, cut where the trainer asks for it, and comes back whole") {
    for (const Corpus& corpus : corpora()) {
      INFO(std::string(corpus.name));
      TrainingCuts cuts;
      size_t longest = 0;
      for (const std::string& text : corpus.texts) {
        std::string seen;
        const TrainingCuts own = for_each_training_line(text, [&](std::string_view line) {
          CHECK(!line.empty());
          longest = std::max(longest, line.size());
          seen += line;
        });
        cuts.words += own.words;
        cuts.symbols += own.symbols;
        if (own.symbols == 0) CHECK(seen == text);
      }
      CHECK(cuts.words == corpus.long_words);
      CHECK(cuts.symbols == corpus.dropped_symbols);
      const Tokenizer tokenizer = train(corpus.vocab_size, corpus.texts);
      CHECK(tokenizer.vocab_size() == corpus.vocab_size);
      for (const std::string& text : corpus.texts)
        if (text.find("\xE2\x96\x81") == std::string::npos) CHECK((tokenizer.decode(tokenizer.encode(text)) == text));
    }
  }

  TEST_CASE("tokenizer training: a word is cut when it has one character more than the trainer can number") {
    for (const std::string letter : {"a", "\xE4\xB8\xAD"})
      for (const auto& [characters, parts] :
           {std::pair<size_t, size_t>{32'768, 1}, {32'769, 1}, {32'770, 2}, {65'538, 2}, {65'539, 3}}) {
        const std::string word = repeated(letter, characters);
        for (const std::string& text : {word, "x " + word + "  y", word + " " + word}) {
          const size_t words = text.size() > 2 * word.size() ? 2 : 1;
          // A space before a word is its first character.
          const size_t own_characters = characters + (text[0] == 'x' || words == 2 ? 1 : 0);
          size_t lines = 0;
          const TrainingCuts cuts = for_each_training_line(text, [&](std::string_view) { ++lines; });
          INFO(characters << " of " << letter.size() << " bytes, " << words << " words");
          const size_t own_parts = (own_characters - 1) / 32'769 + 1;
          if (words == 2) {
            CHECK(cuts.words == (characters > 32'769) + (own_characters > 32'769));
            CHECK(lines == parts + own_parts);  // the line is cut in front of the second word
          } else {
            CHECK(cuts.words == (own_characters > 32'769 ? 1 : 0));
            if (text[0] != 'x') CHECK(lines == own_parts);
            // "x", the word, and "  y" with its last part where both fit
            if (text[0] == 'x')
              CHECK(lines == 1 + own_parts + ((own_characters - 1) % 32'769 + 1 + 3 > 32'769 ? 1 : 0));
          }
        }
      }
  }

  TEST_CASE(
      "tokenizer training: a line is cut between words, so that long lines of short words train, and to the same "
      "model") {
    std::string line;
    for (int i = 0; line.size() < 100'000; ++i)
      line += (i == 0 ? "" : " ") + std::string(i % 3 == 0 ? "document" : i % 3 == 1 ? "abc" : "of");
    std::string whole;
    const TrainingCuts cuts = for_each_training_line(line, [&](std::string_view part) {
      CHECK(part.size() <= 32'769);
      CHECK((whole.empty() || part.front() == ' '));
      whole += part;
    });
    CHECK(cuts.words == 0);
    CHECK(whole == line);
    std::vector<std::string> short_lines;
    for (size_t i = 0; i < line.size();) {
      const size_t end = std::min(line.find(' ', std::min(i + 1000, line.size())), line.size());
      short_lines.push_back(line.substr(i, end - i));
      i = end;
    }
    CHECK(train(272, {line}).pieces().size() == 272);
    CHECK(train(272, {line}).fingerprint() == train(272, short_lines).fingerprint());
  }

  TEST_CASE("tokenizer training: shorter words give the model they always gave") {
    // 32,769 characters are the most that needed no cut: cut in two, they would give other pieces.
    const std::string word = repeated("ab", 16'384) + "a";
    const Tokenizer tokenizer = train(272, {word});
    std::string longest;
    for (const Piece& piece : tokenizer.pieces())
      if (piece.type == PieceType::normal && piece.text.size() > longest.size()) longest = piece.text;
    CHECK(longest == repeated("ab", 8));  // SentencePiece's limit of 16 characters
  }
}

TEST_SUITE("faults") {
  TEST_CASE("tokenizer training: a vocabulary that the text does not allow is refused with the one that it does") {
    struct Row {
      const char* name;
      std::vector<std::string> texts;
      int64_t smallest, largest;  // 260 and the characters; and the pairs that merge
    };
    const std::vector<Row> rows = {
        {"one character", {"a"}, 261, 261},
        {"single characters", {"a", "b", "c", "d"}, 264, 264},
        {"digits stand alone", {repeated("0123456789", 100)}, 270, 270},
        {"one word", {"abc"}, 263, 266},  // ab, abc, and bc, which the trainer counted before it took ab
        {"spaces", {"   "}, 261, 263},    // two and three of them
        {"scripts do not mix",
         {"a\xE4\xB8\xAD"
          "b"},
         263,
         263},
    };
    for (const Row& row : rows) {
      INFO(std::string(row.name));
      for (const int64_t fitting : {row.smallest, row.largest})
        CHECK(train(fitting, row.texts).vocab_size() == fitting);
      const Caught large = caught([&] { train(row.largest + 1, row.texts); });
      CHECK(large.code == 2);
      CHECK_MESSAGE(large.says("at most " + std::to_string(row.largest) +
                               " pieces: set vocab_size = " + std::to_string(row.largest)),
                    large.text);
      if (row.smallest == 261) continue;
      const Caught small = caught([&] { train(row.smallest - 1, row.texts); });
      CHECK(small.code == 2);
      CHECK_MESSAGE(small.says("set vocab_size = " + std::to_string(row.smallest) + " or more"), small.text);
    }
  }

  TEST_CASE(
      "tokenizer training: the coverage that the library refuses is refused by us, rare characters become bytes above "
      "it") {
    CHECK(caught([] { train(270, {"abc"}, 0.97); }).says("got 0.97, expected 0.98 to 1"));
    const std::vector<std::string> texts = {repeated("a", 99) + "\xE4\xB8\xAD"};
    CHECK(train(262, texts, 1.0).vocab_size() == 262);
    CHECK(train(265, texts, 0.98).encode("\xE4\xB8\xAD").size() == 3);
  }

  TEST_CASE("tokenizer training: text without a character to learn from is refused") {
    for (const std::vector<std::string>& texts :
         {std::vector<std::string>{}, {""}, {"\n\n"}, {std::string(9, '\0')}, {"\xE2\x96\x85\xE2\x96\x85"}})
      CHECK(caught([&] { train(300, texts); }).says("no text to train on"));
    CHECK(caught([] { train(261, {"\t\t"}); }).says("at most 260 pieces"));
  }
}

}  // namespace coppice
