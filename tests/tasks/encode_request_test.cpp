#include "src/tasks/encode_request.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <optional>
#include <sstream>

#include "src/tasks/known_tasks.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"
#include "tests/tokens/trained_table.h"

namespace coppice {

using test::load_bytes;
using test::table;
using test::TokenizerCase;

namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer trained = [] {
    std::istringstream text(slurp(std::filesystem::path(COPPICE_SOURCE_DIR) / "CONTRIBUTING.md") +
                            slurp(std::filesystem::path(COPPICE_SOURCE_DIR) / "README.md"));
    const ScratchFolder folder;
    return Tokenizer::load(folder.write("tokenizer.model", train_tokenizer({.vocab_size = 400}, [&](std::string& line) {
                                          while (std::getline(text, line))
                                            if (!line.empty()) return true;
                                          return false;
                                        })));
  }();
  return trained;
}

std::vector<int64_t> ids_of(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  return {ids.begin(), ids.end()};
}
std::vector<int64_t> ids_of(std::string_view text) { return ids_of(tokenizer(), text); }

std::vector<int64_t> joined(std::vector<int64_t> left, const std::vector<int64_t>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

EncodedRequest encode(std::string context, std::string continuation, bool add_bos = false) {
  return encode_request(tokenizer(), {std::move(context), std::move(continuation)}, add_bos, "here:1");
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("encode_request: context and continuation are encoded as one text") {
    const EncodedRequest encoded = encode("The sky is", " blue and wide");
    CHECK(joined(encoded.context, encoded.continuation) == ids_of("The sky is blue and wide"));
    CHECK(encoded.context.size() == ids_of("The sky is").size());
    // White space at the context's end belongs to the continuation, whoever wrote it.
    CHECK(encode("The sky is ", "blue and wide").context == encoded.context);
    CHECK(encode("The sky is ", "blue and wide").continuation == encoded.continuation);
    const EncodedRequest spaces = encode("The sky is\u00a0\n\t\u3000", " blue");
    CHECK(spaces.context == ids_of("The sky is"));
    CHECK(tokenizer().decode({spaces.continuation.begin(), spaces.continuation.end()}) == "\u00a0\n\t\u3000 blue");
  }

  TEST_CASE("encode_request: without a context the sequence starts with BOS; with add_bos every one does") {
    const int64_t bos = tokenizer().bos_id().value();
    for (const char* context : {"", " ", "\n\n"})
      for (const bool add_bos : {false, true}) {
        const EncodedRequest encoded = encode(context, "blue", add_bos);
        CHECK(encoded.context == std::vector<int64_t>{bos});
        CHECK(encoded.continuation == ids_of(std::string(context) + "blue"));
      }
    const EncodedRequest encoded = encode("The sky is", " blue", true);
    CHECK(encoded.context == joined({bos}, ids_of("The sky is")));
    CHECK(joined(encoded.context, encoded.continuation) == joined({bos}, ids_of("The sky is blue")));
  }

  TEST_CASE("encode_request: a continuation that melts into the context is refused") {
    std::optional<TaskRequest> melting;  // a piece whose beginning is a piece as well
    for (const Piece& piece : tokenizer().pieces())
      if (piece.type == PieceType::normal && piece.text.size() == 3 &&
          std::ranges::all_of(piece.text, [](char c) { return c > ' ' && c < 0x7f; }) &&
          ids_of(piece.text).size() == 1 && ids_of(piece.text.substr(0, 2)).size() == 1)
        melting = TaskRequest{piece.text.substr(0, 2), piece.text.substr(2)};
    REQUIRE(melting.has_value());
    const auto refusal = caught([&] { encode_request(tokenizer(), *melting, false, "here:1"); });
    CHECK(refusal.code == 3);
    CHECK(refusal.says("here:1"));
  }

  TEST_CASE("encode_request: one dummy prefix for both together; without BOS an empty context is EOS") {
    for (const char* name : {"llama", "no_bos", "one_end"}) {
      INFO(std::string(name));
      const Tokenizer odd = load_bytes(std::ranges::find(table(), name, &TokenizerCase::name)->file.bytes());
      const EncodedRequest encoded = encode_request(odd, {"The tree is", " cut back"}, false, "here:1");
      CHECK(joined(encoded.context, encoded.continuation) == ids_of(odd, "The tree is cut back"));
      CHECK(encoded.context == ids_of(odd, "The tree is"));
      CHECK(odd.decode_continuation({encoded.continuation.begin(), encoded.continuation.end()}) == " cut back");
      const EncodedRequest alone = encode_request(odd, {"", "cut"}, false, "here:2");
      CHECK(alone.context == std::vector<int64_t>{odd.bos_id().value_or(odd.eos_id())});
      CHECK(alone.continuation == ids_of(odd, "cut"));
    }
  }

  TEST_CASE("rolling_windows: every token once, each window full, the last one filled from the left") {
    const std::string text = "The old oak cuts the long winter, and a young birch remembers our forester.";
    const std::vector<int64_t> ids = ids_of(text);
    const int64_t bos = tokenizer().bos_id().value();
    for (const int64_t length :
         {int64_t{1}, int64_t{5}, int64_t{8}, std::ssize(ids) - 1, std::ssize(ids), std::ssize(ids) + 9}) {
      INFO(length);
      const std::vector<EncodedRequest> windows = rolling_windows(tokenizer(), text, false, length);
      std::vector<int64_t> judged;
      for (const EncodedRequest& window : windows) {
        const int64_t read = std::ssize(window.context) + std::ssize(window.continuation) - 1;
        CHECK(read == std::min<int64_t>(length, std::ssize(ids)));
        // what stands before the judged tokens is what the text has there, behind the prefix
        const std::vector<int64_t> before = joined({bos}, judged);
        CHECK(std::ranges::equal(window.context, std::span(before).last(window.context.size())));
        judged = joined(judged, window.continuation);
      }
      CHECK(judged == ids);
      CHECK(std::ssize(windows) == (std::ssize(ids) + length - 1) / length);
    }
    CHECK(rolling_windows(tokenizer(), "", false, 8).empty());
    CHECK(rolling_windows(tokenizer(), "", true, 8)[0].continuation == std::vector<int64_t>{bos});
  }

  TEST_CASE("encode_task: what is longer than a model reads is refused before anything runs") {
    TaskDocument item{
        .document = {}, .where = "t:3", .requests = {{"c", " word after word"}, {"c", " b"}}, .target = 0};
    item.choices = {"word after word", "b"};
    const PreparedTask task{.definition = known_task("choices"), .documents = {item}};
    CHECK(encode_task(tokenizer(), task, false, 64).counts == std::vector<size_t>{2});
    const Caught refusal = caught([&] { encode_task(tokenizer(), task, false, 2); });
    CHECK(refusal.code == 3);
    CHECK(refusal.says("t:3: choices[0]: is"));
    CHECK(refusal.says("knows 2 positions"));
    TaskDocument sum{.document = {}, .where = "t:1", .requests = {{"How many trees are there?", ""}}, .target = ""};
    const PreparedTask written{.definition = known_task("gsm8k"), .documents = {sum}};
    CHECK(caught([&] { encode_task(tokenizer(), written, false, 256); }).code == 2);
    CHECK(encode_task(tokenizer(), written, false, 259).prompts[0].size() == 3);  // the newest tokens
  }
}

}  // namespace coppice
