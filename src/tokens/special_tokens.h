// Which tokens begin, end and pad a text: a tokenizer.json does not say, the files beside it do. Private to src/tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace coppice {

inline constexpr const char* kSpecialTokensFile = "special_tokens_map.json";

struct SpecialToken {
  std::vector<std::string> names;  // as the files call it, the first file first
  std::optional<int64_t> id;       // where no name is a token
};
struct SpecialTokens {
  SpecialToken bos, eos, pad;
};

/// From tokenizer_config.json and special_tokens_map.json by name, from config.json by id (of a list the first), as far
/// as they are there. UserError::bad_file for one that cannot be parsed.
SpecialTokens read_special_tokens(const std::filesystem::path& folder);

}  // namespace coppice
