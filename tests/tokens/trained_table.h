// The table of tokenizers around one that is trained here, on the pages of this project.
#pragma once

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "src/tokens/tokenizer_training.h"
#include "tests/scratch_folder.h"
#include "tests/tokens/tokenizer_models.h"

namespace coppice::test {

inline const std::vector<std::string>& lines_of_pages() {
  static const std::vector<std::string> lines = [] {
    std::vector<std::string> result;
    for (const char* page : {"README.md", "CONTRIBUTING.md"}) {
      std::istringstream text(slurp(std::filesystem::path(COPPICE_SOURCE_DIR) / page));
      for (std::string line; std::getline(text, line);) result.push_back(line);
    }
    return result;
  }();
  return lines;
}

inline Tokenizer load_bytes(const std::string& bytes) {
  const ScratchFolder folder;
  return Tokenizer::load(folder.write("tokenizer.model", bytes));
}

inline const std::vector<TokenizerCase>& table() {
  static const std::vector<TokenizerCase> cases = [] {
    size_t i = 0;
    const std::string model = train_tokenizer({.vocab_size = 700}, [&](std::string& line) {
      if (i == lines_of_pages().size()) return false;
      line = lines_of_pages()[i++];
      return true;
    });
    return tokenizer_table(load_bytes(model).pieces());
  }();
  return cases;
}

}  // namespace coppice::test
