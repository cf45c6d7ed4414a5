// Text as it comes: the pieces together are the whole, each ends where a character does, and stops are never printed.
#include "src/tokens/text_stream.h"

#include <doctest/doctest.h>

#include "src/tokens/tokenizer_training.h"
#include "tests/scratch_folder.h"

namespace coppice {
namespace {

/// Few pieces: most characters beyond ASCII are bytes.
const Tokenizer& tokenizer() {
  static const ScratchFolder folder;
  static const Tokenizer trained = [] {
    int line = 0;
    return Tokenizer::load(folder.write(
        "tokenizer.model", train_tokenizer({.vocab_size = 300}, [&](std::string& paragraph) {
          paragraph = "the rain in the north and the wind in the south stop the boat " + std::to_string(line);
          return line++ < 200;
        })));
  }();
  return trained;
}

struct Streamed {
  std::string text;
  std::vector<std::string> pieces;
  size_t read = 0;
  bool stopped = false;
};

Streamed stream(const std::string& text, const std::vector<std::string>& stops = {}) {
  Streamed result;
  TextStream stream(tokenizer(), stops, /*begins=*/true);
  for (const int32_t id : tokenizer().encode(text)) {
    result.pieces.push_back(stream.add(id));
    ++result.read;
    if (stream.stopped()) break;
  }
  result.pieces.push_back(stream.finish());
  result.stopped = stream.stopped();
  for (const std::string& piece : result.pieces) result.text += piece;
  return result;
}

/// Neither begins with the rest of a character nor ends within one.
bool is_whole(const std::string& piece) {
  size_t at = 0;
  while (at < piece.size()) {
    const auto byte = static_cast<unsigned char>(piece[at]);
    if (byte >= 0x80 && byte < 0xc0) return false;
    at += byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
  }
  return at == piece.size();
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("text_stream: pieces are whole characters and together the text") {
    for (const std::string text : {"", "the rain", " the  wind\n", "Ελληνικά, 中文 and \U0001F600 in one line:",
                                   "ends in \U0001F600", "a lone \xEF\xBF\xBD and more", "ends in \xEF\xBF\xBD"}) {
      CAPTURE(text);
      const Streamed streamed = stream(text);
      CHECK(streamed.text == text);
      CHECK_FALSE(streamed.stopped);
      for (const std::string& piece : streamed.pieces) CHECK(is_whole(piece));
    }
    CHECK(stream("the rain in the north").pieces[0] != "");  // nothing is held back without need
  }

  TEST_CASE("text_stream: ends before the first stop, also where it stands across tokens, and reads no further") {
    const std::string text = "the boat and the wind 12\n\nthe rain";
    CHECK(stream(text, {"\n\n"}).text == "the boat and the wind 12");
    CHECK(stream(text, {"\n\n"}).stopped);
    CHECK(stream(text, {"\n\n"}).read < tokenizer().encode(text).size());
    CHECK(stream(text, {"2\n\nt"}).text == "the boat and the wind 1");
    CHECK(stream(text, {"rain", "wind"}).text == "the boat and the ");
    CHECK(stream(text, {"t"}).text == "");
  }

  TEST_CASE("text_stream: what a stop only begins with comes at last") {
    const Streamed streamed = stream("the boat and the rai", {"rain", "boat and south"});
    CHECK(streamed.text == "the boat and the rai");
    CHECK_FALSE(streamed.stopped);
    for (const std::string& piece : streamed.pieces)
      CHECK(piece.find("rai") == (piece == streamed.pieces.back() ? 0 : std::string::npos));
  }
}

}  // namespace coppice
