// The tokenizer against SentencePiece itself, on the text of this repository, and the fences around model files.
#include "src/tokens/tokenizer.h"

#include <doctest/doctest.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "src/base/random.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/data/data_files.h"
#include "tests/tokens/tokenizer_models.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;
using test::Proto;

/// Sources and documentation of coppice: prose, code, numbers, some of it beyond ASCII.
const std::vector<std::string>& repository_texts() {
  static const std::vector<std::string> texts = [] {
    std::vector<fs::path> paths;
    for (const char* folder : {"src", "tests/data", "docs"})
      for (const auto& entry : fs::recursive_directory_iterator(fs::path(COPPICE_SOURCE_DIR) / folder))
        if (entry.is_regular_file() && (entry.path().extension() == ".h" || entry.path().extension() == ".cpp" ||
                                        entry.path().extension() == ".md"))
          paths.push_back(entry.path());
    std::sort(paths.begin(), paths.end());
    std::vector<std::string> result;
    for (const fs::path& path : paths) result.push_back(slurp(path));
    return result;
  }();
  return texts;
}

std::string train(int64_t vocab_size, const std::vector<std::string>& texts) {
  TokenizerOptions options;
  options.vocab_size = vocab_size;
  size_t i = 0;
  return train_tokenizer(options, [&](std::string& paragraph) {
    if (i == texts.size()) return false;
    paragraph = texts[i++];
    return true;
  });
}

const std::string& model_1000() {
  static const std::string model = train(1000, repository_texts());
  return model;
}

Tokenizer load_bytes(const std::string& bytes) {
  const ScratchFolder folder;
  return Tokenizer::load(folder.write("tokenizer.model", bytes));
}

std::vector<int32_t> reference_ids(const sentencepiece::SentencePieceProcessor& processor, const std::string& text) {
  std::vector<int> ids;
  REQUIRE(processor.Encode(text, &ids).ok());
  return {ids.begin(), ids.end()};
}

std::string field(uint64_t number, const std::string& bytes) { return Proto().text(number, bytes).bytes; }
std::string number_field(uint64_t number, uint64_t value) { return Proto().number(number, value).bytes; }
std::string piece(const std::string& text, uint64_t type) {
  return field(1, Proto().text(1, text).number(3, type).bytes);
}

/// Characters [begin, begin + count) of a UTF-8 text, counted in bytes and widened to whole characters.
std::string slice(const std::string& text, size_t begin, size_t count) {
  const auto is_inside = [&](size_t i) {
    return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80;
  };
  size_t end = std::min(begin + count, text.size());
  while (is_inside(begin)) ++begin;
  while (is_inside(end)) ++end;
  return text.substr(begin, end - begin);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("tokenizer: training gives the documented layout and the same bytes again") {
    const Tokenizer tokenizer = load_bytes(model_1000());
    CHECK(tokenizer.vocab_size() == 1000);
    CHECK(tokenizer.unk_id() == 0);
    CHECK(tokenizer.bos_id() == 1);
    CHECK(tokenizer.eos_id() == 2);
    CHECK(tokenizer.pad_id() == 3);
    CHECK(tokenizer.pieces()[4].text == "<0x00>");
    CHECK(tokenizer.pieces()[259].text == "<0xFF>");
    CHECK(tokenizer.pieces()[4].type == PieceType::byte);
    CHECK(tokenizer.pieces()[2].type == PieceType::control);
    CHECK(train(1000, repository_texts()) == model_1000());
  }

  TEST_CASE("tokenizer: a line longer than SentencePiece's default limit is not dropped") {
    std::string text = "zweigstelle";
    for (int i = 0; i < 3000; ++i) text += " zweigstelle";       // 36,000 bytes in one line
    const Tokenizer tokenizer = load_bytes(train(279, {text}));  // 8 letters, the space, and 10 merges or so
    CHECK(tokenizer.encode(text).size() < 3001 * 3);
  }

  TEST_CASE("tokenizer: text full of control names does not become control pieces") {
    std::vector<std::string> texts = repository_texts();
    texts.insert(texts.end(), 50, "<s>ab</s> x<s>cd</s> <unk> <pad> y<s>ab</s> <s> <s> </s> </s>");
    const Tokenizer tokenizer = load_bytes(train(1000, texts));
    const std::vector<int32_t> ids = tokenizer.encode("<s> </s> <unk>");
    CHECK(tokenizer.decode(ids) == "<s> </s> <unk>");
    CHECK(std::ranges::none_of(ids, [](int32_t id) { return id < 4; }));
    // BPE merges never join letters and signs, so that no two pieces spell "<s>": programs that merge by looking up the
    // vocabulary cannot build it either
    for (const Piece& piece : tokenizer.pieces())
      if (piece.type == PieceType::normal)
        CHECK_FALSE((piece.text.find('<') != std::string::npos && piece.text.find('s') != std::string::npos));
  }

  TEST_CASE("tokenizer: names of control pieces are pieces where they are asked for") {
    const Tokenizer tokenizer = load_bytes(model_1000());
    std::vector<int32_t> expected = {1, 1};
    for (const int32_t id : tokenizer.encode("the cat")) expected.push_back(id);
    expected.push_back(2);
    CHECK(tokenizer.encode_with_specials("<s><s>the cat</s>") == expected);
    CHECK(tokenizer.encode_with_specials("the </s") == tokenizer.encode("the </s"));
    CHECK(tokenizer.encode_with_specials("").empty());
  }

  TEST_CASE("tokenizer: digits stand alone, unseen characters become bytes, newline is a byte") {
    const Tokenizer tokenizer = load_bytes(model_1000());
    const auto pieces_of = [&](const std::string& text) {
      std::vector<std::string> names;
      for (const int32_t id : tokenizer.encode(text)) names.push_back(tokenizer.pieces()[static_cast<size_t>(id)].text);
      return names;
    };
    CHECK(pieces_of("907") == std::vector<std::string>{"9", "0", "7"});
    CHECK(pieces_of("\n") == std::vector<std::string>{"<0x0A>"});
    CHECK(pieces_of("\xF0\x9F\x8C\xB3") == std::vector<std::string>{"<0xF0>", "<0x9F>", "<0x8C>", "<0xB3>"});
    CHECK(tokenizer.encode("").empty());
  }

  TEST_CASE("tokenizer: ids equal SentencePiece's and text comes back, on whole files, lines and odd strings") {
    const Tokenizer tokenizer = load_bytes(model_1000());
    sentencepiece::SentencePieceProcessor processor;
    REQUIRE(processor.LoadFromSerializedProto(model_1000()).ok());
    std::vector<std::string> texts = repository_texts();
    for (const std::string& text : repository_texts())
      for (size_t begin = 0; begin < text.size(); begin += 997) texts.push_back(slice(text, begin, 61));
    for (const char* odd : {" ",
                            "  ",
                            "   x",
                            "x   ",
                            "\n",
                            "\n\n \n",
                            " \n ",
                            "a\n\nb",
                            "a \n b",
                            "<s> </s> <unk> <pad>",
                            "<0x0A>",
                            "\t\tx\t",
                            "a\xE2\x96\x81"
                            "b",
                            "\xE2\x96\x81",
                            "a \xE2\x96\x81 b",
                            "a\xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81 b",
                            "\xE2\x96",
                            "\r\n\r\n",
                            "\xC2\xA0 x",
                            "1 2  3   4"})
      texts.emplace_back(odd);
    texts.emplace_back("a\0b \0", 5);
    for (const size_t length : {1, 31, 32, 33, 64, 257}) {
      texts.emplace_back(length, ' ');
      texts.emplace_back(length, 'a');
      texts.emplace_back(length, '\n');
      std::string mixed = "x";
      mixed.append(length, ' ').append("y\n").append(length, ' ').append("z");
      texts.push_back(mixed);
    }
    // random strings of a small alphabet that holds everything a cut looks at
    const std::vector<std::string> alphabet = {" ", " ", "\n",       "\xE2\x96\x81", "t", "h", "e",
                                               "1", "_", "\xC3\xA9", "\xE2\x80\x94", "(", "\t"};
    for (uint64_t i = 0; i < 3000; ++i) {
      std::string text;
      const uint64_t length = random_bits(7, Purpose::test, i, 0) % 40;
      for (uint64_t j = 1; j <= length; ++j) text += alphabet[random_bits(7, Purpose::test, i, j) % alphabet.size()];
      texts.push_back(text);
    }
    size_t num_different = 0, num_lost = 0;
    for (int round = 0; round < 2; ++round) {  // the second time from memory
      for (const std::string& text : texts) {
        const std::vector<int32_t> ids = tokenizer.encode(text);
        num_different += ids != reference_ids(processor, text);
        if (text.find("\xE2\x96") == std::string::npos) num_lost += tokenizer.decode(ids) != text;
      }
    }
    CHECK(texts.size() > 3000);
    CHECK(num_different == 0);
    CHECK(num_lost == 0);
  }

  TEST_CASE("tokenizer: several threads encode at once") {
    const Tokenizer tokenizer = load_bytes(model_1000());
    std::vector<std::vector<std::vector<int32_t>>> results(4);
    std::vector<std::thread> threads;
    for (auto& result : results)
      threads.emplace_back([&] {
        for (const std::string& text : repository_texts()) result.push_back(tokenizer.encode(text));
      });
    for (std::thread& thread : threads) thread.join();
    for (const auto& result : results) CHECK(result == results[0]);
  }

  TEST_CASE("tokenizer: the fingerprint is that of the pieces, not of the file") {
    const Tokenizer one = load_bytes(model_1000());
    const Tokenizer padded = load_bytes(model_1000() + field(4, ""));  // empty self-test data
    CHECK(one.fingerprint().size() == 64);
    CHECK(one.fingerprint() == padded.fingerprint());
    CHECK(one.fingerprint() != load_bytes(train(999, repository_texts())).fingerprint());
  }

  TEST_CASE("merge_list: every split into pieces, shorter left half first, in id order") {
    const std::vector<Piece> pieces = {{"<s>", 0, PieceType::control},
                                       {"<", 0, PieceType::normal},
                                       {"s>", 0, PieceType::normal},
                                       {"ab", 0, PieceType::normal},
                                       {"abc", 0, PieceType::normal},
                                       {"a", 0, PieceType::normal},
                                       {"b", 0, PieceType::normal},
                                       {"c", 0, PieceType::normal},
                                       {"bc", 0, PieceType::normal},
                                       {"\xC3\xA9", 0, PieceType::normal},
                                       {"\xC3\xA9"
                                        "a",
                                        0, PieceType::normal}};
    const std::vector<std::pair<std::string, std::string>> expected = {
        {"a", "b"}, {"a", "bc"}, {"ab", "c"}, {"b", "c"}, {"\xC3\xA9", "a"}};
    CHECK(merge_list(pieces) == expected);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("tokenizer: a vocabulary that does not fit the text is a recipe error that names the maximum") {
    const Caught large = caught([] { train(60'000, {"a small text", "of two lines"}); });
    CHECK(large.code == 2);
    CHECK(large.says("tokenizer.vocab_size"));
    CHECK(large.says("at most 3"));
    CHECK(caught([] { train(100, repository_texts()); }).code == 2);
    CHECK(caught([] { train(300, {}); }).code == 2);
    CHECK(caught([] { train(300, {"", "\n"}); }).code == 2);
  }

  TEST_CASE("tokenizer: model files are walked before the library sees them") {
    const std::string bytes_and_unknown = [] {
      std::string out = piece("<unk>", 2) + piece("<s>", 3) + piece("</s>", 3);
      for (int i = 0; i < 256; ++i) {
        char name[8];
        std::snprintf(name, sizeof name, "<0x%02X>", i);
        out += piece(name, 6);
      }
      return out;
    }();
    const std::string trainer = field(2, number_field(3, 2) + number_field(35, 1));
    const std::string identity = field(3, number_field(3, 0) + number_field(4, 0));
    const std::string good = bytes_and_unknown + piece("a", 1) + trainer + identity;
    CHECK(load_bytes(good).vocab_size() ==
          260);  // the pieces below are refused for what they are, not for how they are made
    const auto refuse = [&](const std::string& bytes, const std::string& part) {
      const Caught refusal = caught([&] { load_bytes(bytes); });
      INFO(part << ": " << refusal.text);
      CHECK(refusal.code == 3);
      CHECK(refusal.says(part));
    };
    refuse("", "no pieces");
    refuse("not a model at all", "damaged");
    refuse(good.substr(0, good.size() - 1), "left");
    refuse(piece(std::string(400'000, 'x'), 1) + good, "longer than 1024");
    refuse(piece(std::string("a\0b", 3), 1) + good, "NUL");
    refuse(piece("", 1) + good, "empty");
    refuse(piece("\xFF", 1) + good, "UTF-8");
    refuse(piece("b", 9) + good, "type 9");
    refuse(piece("a", 1) + good, "occurs twice");
    refuse(piece("<unk2>", 2) + good, "2 unknown");
    refuse(piece("<0x-1>", 6) + good, "byte piece");
    refuse(piece("<0x0a>", 6) + good, "byte piece");
    refuse(good + field(3, number_field(3, 0)), "two normaliser");
    CHECK(load_bytes(bytes_and_unknown + trainer + field(3, number_field(4, 0)))
              .has_dummy_prefix());  // absent means true
    refuse(bytes_and_unknown + trainer + field(3, number_field(3, 0)), "remove_extra_whitespaces");
    refuse(bytes_and_unknown + trainer + field(3, field(2, "trie") + number_field(3, 0) + number_field(4, 0)),
           "precompiled_charsmap");
    refuse(bytes_and_unknown + field(2, number_field(35, 1)) + identity, "model_type 1");
    refuse(bytes_and_unknown + field(2, number_field(3, 2)) + identity, "byte_fallback");
    refuse(piece("<unk>", 2) + piece("a", 1) + trainer + identity, "256 byte pieces");
    refuse(good + std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11), "left");
    refuse(good + std::string("\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 12), "64 bits");
    const ScratchFolder folder;
    CHECK(caught([&] { Tokenizer::load(folder.path / "missing.model"); }).code == 3);
    CHECK(caught([&] { Tokenizer::load(folder.path); }).code == 3);
  }

  TEST_CASE("tokenizer: mutated model files load or are refused, never more") {
    const std::string& model = model_1000();
    size_t num_refused = 0;
    for (uint64_t i = 0; i < 300; ++i) {
      std::string damaged = model;
      for (uint64_t k = 0; k <= i % 3; ++k)
        damaged[random_bits(3, Purpose::test, i, 2 * k) % damaged.size()] =
            static_cast<char>(random_bits(3, Purpose::test, i, 2 * k + 1));
      try {
        const Tokenizer tokenizer = load_bytes(damaged);
        CHECK(tokenizer.encode("the cat sat on 12 mats\n").size() > 0);
      } catch (const UserError& error) {
        ++num_refused;
        CHECK(error.code() == ExitCode::bad_file);
      }
    }
    CHECK(num_refused > 30);
  }
}

}  // namespace coppice
