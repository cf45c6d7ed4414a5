// The names that llama.cpp has for ways of cutting text into words (tokenizer.ggml.pre), and what each stands for in a
// tokenizer.json. Private to src/tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/tokens/regex_split.h"

namespace coppice {

struct GgufPreTokenizer {
  const char* name;                         // written
  std::vector<std::string_view> also_read;  // other names of the same
  std::vector<SplitStep> steps;
  bool ignore_merges = false;
  bool nfc = false;      // the tokenizer.json of these models normalises; llama.cpp does not
  bool add_bos = false;  // where the file does not say
};

const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers();
/// nullptr when it is not known.
const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name);
/// "gpt-2, smollm, ...", for messages.
std::string gguf_pre_tokenizer_names();

}  // namespace coppice
