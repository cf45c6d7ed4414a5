// Choices of tasks through tokenizers as they come.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "src/data/tasks.h"
#include "src/tokens/tokenizer.h"
#include "tests/tokens/trained_table.h"

namespace coppice {

using test::load_bytes;
using test::table;
using test::TokenizerCase;

TEST_SUITE("unit") {
  TEST_CASE("encode_choice: one dummy prefix for context and choice together; without BOS an empty context is EOS") {
    for (const char* name : {"llama", "no_bos", "one_end"}) {
      INFO(std::string(name));
      const Tokenizer tokenizer = load_bytes(std::ranges::find(table(), name, &TokenizerCase::name)->file.bytes());
      const auto ids_of = [&](const std::string& text) {
        const std::vector<int32_t> ids = tokenizer.encode(text);
        return std::vector<int64_t>(ids.begin(), ids.end());
      };
      const TaskItem item{.context = "The tree is", .choices = {"cut back", "x"}, .where = "here:1"};
      const EncodedChoice encoded = encode_choice(tokenizer, item, 0);
      std::vector<int64_t> whole = encoded.context;
      whole.insert(whole.end(), encoded.continuation.begin(), encoded.continuation.end());
      CHECK(whole == ids_of("The tree is cut back"));
      CHECK(encoded.context == ids_of("The tree is"));
      CHECK(tokenizer.decode_continuation({encoded.continuation.begin(), encoded.continuation.end()}) == " cut back");
      const EncodedChoice alone =
          encode_choice(tokenizer, {.context = "", .delimiter = "", .choices = {"cut", "x"}, .where = "here:2"}, 0);
      CHECK(alone.context == std::vector<int64_t>{tokenizer.bos_id().value_or(tokenizer.eos_id())});
      CHECK(alone.continuation == ids_of("cut"));
    }
  }
}

}  // namespace coppice
