#include "src/tokens/text_ids.h"

#include <doctest/doctest.h>

#include <unordered_map>

#include "src/base/random.h"

namespace coppice {

TEST_SUITE("unit") {
  TEST_CASE("text_ids: finds what was added and nothing else, with room and without, the empty text too") {
    for (const size_t reserved : {0, 3000}) {
      CAPTURE(reserved);
      TextIds ids;
      ids.reserve(reserved);
      std::vector<std::string> texts;
      std::unordered_map<std::string, int32_t> expected;
      CHECK(ids.find("", texts) < 0);
      for (uint64_t i = 0; texts.size() < 2000; ++i) {
        std::string text;  // of up to 4 letters out of 8: most are drawn more than once
        for (uint64_t k = 0; k < i % 5; ++k) text += static_cast<char>('a' + random_bits(9, Purpose::test, i, k) % 8);
        const auto known = expected.find(text);
        REQUIRE(ids.find(text, texts) == (known == expected.end() ? -1 : known->second));
        if (known != expected.end()) continue;
        expected.emplace(text, static_cast<int32_t>(texts.size()));
        ids.add(text, static_cast<int32_t>(texts.size()));
        texts.push_back(text);
      }
      CHECK(ids.size() == 2000);
      CHECK(ids.find("", texts) == 0);
      CHECK(ids.find("aaaaa", texts) < 0);
      for (size_t id = 0; id < texts.size(); ++id) REQUIRE(ids.find(texts[id], texts) == static_cast<int32_t>(id));
    }
  }
}

}  // namespace coppice
