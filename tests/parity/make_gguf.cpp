// Our side of tests/parity/gguf_test.py: files that llama.cpp and the gguf package read, and what we read of theirs.
//   parity_gguf produce <work>                     training.txt -> <architecture>-<type>.gguf, greedy.json
//   parity_gguf import <file.gguf> <out.safetensors>   the parameters under their GGUF names
//   parity_gguf encode <file.gguf> <strings.json> <ids.json>
//   parity_gguf greedy <file.gguf> <prompts.json> <texts.json>   [{"prompt", "tokens", "margins"}]
//   parity_gguf again <file.gguf> <out.gguf> <type>   imported and exported
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/checkpoint/gguf_export.h"
#include "src/checkpoint/gguf_import.h"
#include "src/checkpoint/safetensors.h"
#include "src/model/generate.h"
#include "src/tensors/shape.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/checkpoint/tiny.h"
#include "tests/parity/cut_model.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

constexpr int64_t kNewTokens = 32;

void write_json(const fs::path& path, const Json& json) { write_file_atomically(path, json.dump()); }

Tokenizer train(const fs::path& work) {
  std::ifstream lines(work / "training.txt");
  const auto next_line = [&](std::string& line) { return static_cast<bool>(std::getline(lines, line)); };
  write_file_atomically(work / "tokenizer.model",
                        train_tokenizer({.vocab_size = 512, .character_coverage = 0.999}, next_line));
  return Tokenizer::load(work / "tokenizer.model");
}

/// Weights of a size at which attention and FFN both matter.
Model random_model(const ModelConfig& config, uint64_t seed) {
  Model model = tiny_model(config, seed);
  const c10::NoGradGuard no_grad;
  for (const Parameter& parameter : parameter_table(config))
    if (parameter.kind != ParameterKind::norm) model.arena->edit_master()[parameter.name].mul_(2.0);
  return model;
}

ModelConfig config_of(const std::string& architecture, std::vector<int64_t> widths) {
  ModelConfig config = tiny_config(architecture == "qwen3", std::move(widths));
  config.hidden_size = 64;
  config.head_dim = architecture == "qwen2" ? 16 : 32;  // where it may, not hidden_size / heads
  config.max_position_embeddings = 256;
  config.qkv_bias = architecture == "qwen2";
  return config;
}

/// Beside each token how far the best logit is above the second, relative to the largest.
Json greedy(const Model& model, const Tokenizer& tokenizer, const std::vector<int64_t>& prompt) {
  const c10::NoGradGuard no_grad;
  const std::vector<int64_t> tokens = generate(model, prompt, tokenizer.eos_id(), {.max_new_tokens = kNewTokens});
  std::vector<int64_t> read = prompt;
  Json margins = Json::array();
  for (const int64_t token : tokens) {
    const auto length = static_cast<int64_t>(read.size());
    const at::Tensor logits_V = decoder_logits(model, {.token_BT = at::tensor(read, at::kLong).view({1, length}),
                                                       .position_BT = at::arange(length, at::kLong).view({1, length}),
                                                       .document_BT = {}})[length - 1];
    const at::Tensor best = std::get<0>(logits_V.topk(2));
    margins.push_back((best[0] - best[1]).item<double>() / logits_V.abs().max().item<double>());
    read.push_back(token);
  }
  return {{"prompt", prompt}, {"tokens", tokens}, {"margins", margins}};
}

void produce(const fs::path& work) {
  const Tokenizer tokenizer = train(work);
  struct Case {
    const char *name, *architecture;
    std::vector<int64_t> widths;
    bool tied = true, scaled = false, cut = false;
  };
  const std::vector<Case> cases = {{"llama", "llama", {96, 96}},
                                   {"qwen2", "qwen2", {96, 96}},
                                   {"qwen3", "qwen3", {96, 96}},
                                   {"untied", "llama", {96}, false},
                                   {"ragged", "qwen3", {96, 33, 64}},
                                   {"scaled", "llama", {96, 96}, true, true},
                                   {"cut", "qwen3", {128, 128, 128}, true, false, true},
                                   {"cut_qwen2", "qwen2", {128, 128, 128}, true, false, true}};
  Json texts = Json::object();
  for (const Case& one : cases) {
    ModelConfig config = config_of(one.architecture, one.widths);
    config.tie_word_embeddings = one.tied;
    if (one.scaled) config.rope_scaling = RopeScaling{.factor = 8.0, .original_max_position_embeddings = 32};
    Model model = random_model(config, 17);
    if (one.cut) model = cut_along(std::move(model), axis_names());
    for (const char* type : {"f32", "f16", "bf16", "q8_0", "q4_0"})
      export_gguf(work / fmt::format("{}-{}.gguf", one.name, type), model, tokenizer,
                  {.type = type, .general = {.name = one.name, .license = "mit"}, .version = "parity"});
    for (const char* text : {"the first of four prompts", "12345.67\n\tfor (;;) { }", "Ελληνικά и 中文", "a"}) {
      const std::vector<int32_t> ids = tokenizer.encode(text);
      texts[one.name].push_back(greedy(model, tokenizer, {ids.begin(), ids.end()}));
    }
  }
  write_json(work / "greedy.json", texts);
}

void write_parameters(const fs::path& file, const fs::path& out) {
  const Model model = import_gguf(file);
  const MasterReader master = model.arena->read_master();
  std::vector<SafetensorsTensor> tensors;
  for (const Parameter& parameter : parameter_table(model.config))
    tensors.push_back({parameter.gguf_name, master[parameter.name].contiguous()});
  write_safetensors(out, tensors);
}

int run(int argc, char** argv) {
  const std::string_view verb = argc > 1 ? argv[1] : "";
  if (verb == "produce" && argc == 3) {
    produce(argv[2]);
  } else if (verb == "import" && argc == 4) {
    write_parameters(argv[2], argv[3]);
  } else if (verb == "encode" && argc == 5) {
    const Tokenizer tokenizer = tokenizer_from_gguf(gguf_tokenizer(argv[2]), argv[2]);
    Json ids = Json::array();
    for (const Json& text : read_json(argv[3])) ids.push_back(tokenizer.encode(text.get<std::string>()));
    write_json(argv[4], ids);
  } else if (verb == "greedy" && argc == 5) {
    const Tokenizer tokenizer = tokenizer_from_gguf(gguf_tokenizer(argv[2]), argv[2]);
    const Model model = import_gguf(argv[2]);
    Json texts = Json::array();
    for (const Json& prompt : read_json(argv[3]))
      texts.push_back(greedy(model, tokenizer, prompt.get<std::vector<int64_t>>()));
    write_json(argv[4], texts);
  } else if (verb == "again" && argc == 5) {
    const Tokenizer tokenizer = tokenizer_from_gguf(gguf_tokenizer(argv[2]), argv[2]);
    const HfSettings settings = gguf_settings(argv[2]).settings;
    export_gguf(argv[3], import_gguf(argv[2]), tokenizer,
                {.type = argv[4], .settings = &settings, .general = gguf_facts(argv[2]).general});
  } else {
    std::fputs(
        "usage: parity_gguf produce <work> | import <file> <out> | encode <file> <strings> <ids> | greedy <file> "
        "<prompts> <texts> | again <file> <out> <type>\n",
        stderr);
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  start_torch(2);
  try {
    return run(argc, argv);
  } catch (const Error& error) {
    fmt::print(stderr, "parity_gguf: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
