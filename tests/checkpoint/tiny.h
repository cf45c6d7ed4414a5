// What the checkpoint tests share: damaged files, a tiny model, a tiny tokenizer.
#pragma once

#include <c10/core/GradMode.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/model/decoder.h"
#include "src/model/parameters.h"
#include "src/tokens/tokenizer.h"
#include "src/tokens/tokenizer_training.h"
#include "tests/child_process.h"
#include "tests/scratch_folder.h"

namespace coppice {

inline const bool kQuietLog = (set_log_style(LogStyle::quiet), true);  // warnings still show

/// Flips bits of one byte in place.
inline void flip_byte(const std::filesystem::path& path, uint64_t offset, char bits) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ bits));
}

/// Hundreds of expected warnings would bury a real message.
class SilentStderr {
 public:
  SilentStderr() : saved_(::dup(2)) {
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, 2);
    ::close(nowhere);
  }
  ~SilentStderr() {
    ::dup2(saved_, 2);
    ::close(saved_);
  }
  SilentStderr(const SilentStderr&) = delete;
  SilentStderr& operator=(const SilentStderr&) = delete;

 private:
  int saved_;
};

inline ModelConfig tiny_config(bool qk_norm = true, std::vector<int64_t> widths = {40, 40}) {
  ModelConfig config;
  config.vocab_size = 512;
  config.hidden_size = 32;
  config.num_hidden_layers = static_cast<int64_t>(widths.size());
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.intermediate_size = std::move(widths);
  config.qk_norm = qk_norm;
  config.max_position_embeddings = 128;
  return config;
}

/// Random weights, norms and biases included, so that one left out or swapped shows in the logits.
inline Model tiny_model(const ModelConfig& config, uint64_t seed) {
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, seed);
  c10::NoGradGuard no_grad;
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> around_one(0.5F, 1.5F);
  for (const Parameter& parameter : parameter_table(config)) {
    if (parameter.shape.size() != 1) continue;
    const at::Tensor vector = model.arena->parameter(parameter.name);
    float* values = vector.mutable_data_ptr<float>();
    const float middle = parameter.kind == ParameterKind::bias ? 1.0F : 0.0F;
    for (int64_t i = 0; i < vector.numel(); ++i) values[i] = around_one(random) - middle;
  }
  return model;
}

/// Sentences of invented words over several scripts, a pure function of the line number.
inline std::string invented_line(uint64_t number) {
  static const std::vector<std::vector<std::string>> syllables = {
      {"ta", "re", "mi", "lo", "sun", "der", "wick", "ing"},
      {"ка", "ло", "ми", "на", "στο", "και"},
      {"سلا", "مر", "كت", "اب"},
      {"中", "文", "字", "한", "글"},
      {"0", "12", "7.5", "(", ")", "<", ">", "::", "\t", "  "}};
  std::mt19937_64 random(number);
  std::string line;
  const uint64_t num_words = 5 + random() % 12;
  for (uint64_t word = 0; word < num_words; ++word) {
    const auto& script = syllables[random() % 10 < 6 ? 0 : random() % syllables.size()];
    const uint64_t num_syllables = 1 + random() % 3;
    for (uint64_t i = 0; i < num_syllables; ++i) line += script[random() % script.size()];
    line += ' ';
  }
  return line;
}

/// A 512-piece tokenizer trained on invented lines; trained once a process.
inline const std::string& tiny_tokenizer_bytes() {
  static const std::string bytes = [] {
    uint64_t line = 0;
    return train_tokenizer({.vocab_size = 512}, [&](std::string& paragraph) {
      paragraph = invented_line(line);
      return line++ < 3000;
    });
  }();
  return bytes;
}

inline Tokenizer tiny_tokenizer(const std::filesystem::path& folder) {
  spill(folder / "tokenizer.model", tiny_tokenizer_bytes());
  return Tokenizer::load(folder / "tokenizer.model");
}

}  // namespace coppice
