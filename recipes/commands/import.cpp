#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "recipes/commands/verbs.h"
#include "src/base/errors.h"
#include "src/checkpoint/given_model.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  std::string model, out;
};

void import_model(const Flags& flags) {
  if (std::filesystem::exists(flags.out))
    throw UserError::recipe("-o", fmt::format("{} exists already; name a folder to create", flags.out));
  if (!std::filesystem::exists(flags.model)) throw UserError::bad_file(flags.model, "no such file or folder");
  start_torch(0);
  const Json facts = import_into(flags.out, flags.model);
  const ModelConfig config = given_shape(flags.out).config;
  const std::string weights = facts.at("origin").value("weight_type", "");
  fmt::print(
      "{}: {} parameters, {} layers x {}, vocabulary {}{}{}\n", flags.out, count_parameters(config),
      config.num_hidden_layers, config.hidden_size, config.vocab_size,
      facts.at("padded_rows") == 0 ? "" : fmt::format(" ({} padded rows cut)", facts.at("padded_rows").get<int64_t>()),
      weights.empty() ? "" : fmt::format("; its weights were {}", weights));
}

}  // namespace

void add_import(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb = add_verb(app, "import", "read a model of another program: a Hugging Face folder or a GGUF file",
                            "coppice import SmolLM2-135M-Instruct.Q4_1.gguf -o models/smollm2");
  verb->add_option("model", flags->model, "Hugging Face folder, or GGUF file")->required();
  verb->add_option("-o,--out", flags->out, "folder to create")->required();
  verb->callback([flags, &action] { action = [flags] { import_model(*flags); }; });
}

}  // namespace coppice
