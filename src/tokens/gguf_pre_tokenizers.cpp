// As llama.cpp's src/llama-vocab.cpp has them, with the expressions of the tokenizer.json that each was made for.
#include "src/tokens/gguf_pre_tokenizers.h"

#include <algorithm>

namespace coppice {

namespace {

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace

const std::vector<GgufPreTokenizer>& gguf_pre_tokenizers() {
  static const std::vector<GgufPreTokenizer> table = {
      {.name = "gpt-2",
       .also_read = {"phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "mellum", "gigachat"},
       .steps = {{kGpt2Pattern}}},
      {.name = "smollm",
       .also_read = {"starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
       .steps = {{"\\p{N}"}, {kGpt2Pattern}}},
      {.name = "llama-bpe",
       .also_read = {"llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
       .steps = {{kLlama3}},
       .ignore_merges = true,
       .add_bos = true},
      {.name = "dbrx", .also_read = {"smaug-bpe", "chatglm-bpe", "glm4"}, .steps = {{kLlama3}}},
      {.name = "qwen2", .also_read = {"deepseek-r1-qwen", "megrez"}, .steps = {{kQwen2}}, .nfc = true},
      {.name = "stablelm2", .also_read = {"hunyuan", "solar-open", "grok-2"}, .steps = {{kQwen2}}},
      {.name = "qwen35", .also_read = {}, .steps = {{kQwen35}}, .nfc = true},
      {.name = "default",
       .also_read = {},
       .steps = {{R"([\p{P}\$\+<=>\^~\|]+)"}, {kGpt2Pattern}, {"\\p{N}+"}, {"[0-9][0-9][0-9]"}}},
  };
  return table;
}

const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name) {
  const auto found = std::ranges::find_if(gguf_pre_tokenizers(), [&](const GgufPreTokenizer& row) {
    return name == row.name || std::ranges::find(row.also_read, name) != row.also_read.end();
  });
  return found == gguf_pre_tokenizers().end() ? nullptr : &*found;
}

std::string gguf_pre_tokenizer_names() {
  std::string names;
  for (const GgufPreTokenizer& row : gguf_pre_tokenizers())
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

}  // namespace coppice
