// Documents with sections, lists, names and numbers, and a small tokenizer to count them with.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "src/base/random.h"
#include "src/tokens/tokenizer.h"

namespace coppice::test {

inline const Tokenizer& small_tokenizer() {
  static const Tokenizer tokenizer =
      Tokenizer::load(std::filesystem::path(COPPICE_SOURCE_DIR) / "tests/evaluate/harness/model/tokenizer.model");
  return tokenizer;
}

/// Of document `i`: `sections` sections of four sentences and a list each. Two words are the document's own.
inline std::string made_text(int i, int sections) {
  uint64_t drawn = 0;
  const auto draw = [&](size_t below) {
    return random_bits(7, Purpose::test, static_cast<uint64_t>(i), drawn++) % below;
  };
  const auto word = [&] {
    constexpr const char* kWords[] = {"river", "garden", "winter", "bridge",  "market", "letter", "harbour", "teacher",
                                      "stone", "music",  "forest", "kitchen", "window", "summer", "village", "doctor"};
    return kWords[draw(std::size(kWords))];
  };
  std::string text;
  for (int s = 0; s < sections; ++s) {
    text += fmt::format("The {} and {} of part {}\n\n", word(), word(), 100 * i + s);
    for (int k = 0; k < 4; ++k)
      text += fmt::format("In the {} {} a {} of {} {} met the {} near house {} of the {}. ", word(), word(), word(),
                          fmt::format("Marn{}", static_cast<char>('a' + draw(26))),
                          fmt::format("Tolv{}{}", static_cast<char>('a' + draw(26)), static_cast<char>('a' + draw(26))),
                          word(), 1000 + draw(90000), word());
    text += fmt::format("\n\nThey speak of quaver{0} mandrel{0} and of quaver{0} mandrel{0} at length.\n\n",
                        static_cast<char>('a' + i % 26));
    text += fmt::format("What they bought in part {}:\n\n", 100 * i + s);
    for (int k = 0; k < 3; ++k) text += fmt::format("- {} {} {}\n", 10 + draw(90), word(), word());
    text += "\n";
  }
  return text;
}

inline std::string made_lines(int begin, int end, int sections) {
  std::string lines;
  for (int i = begin; i < end; ++i)
    lines += nlohmann::json({{"id", fmt::format("made-{}", i)},
                             {"text", made_text(i, sections)},
                             {"metadata", {{"license", i % 2 == 0 ? "CC0-1.0" : "MIT OR Apache-2.0"}}}})
                 .dump() +
             "\n";
  return lines;
}

}  // namespace coppice::test
