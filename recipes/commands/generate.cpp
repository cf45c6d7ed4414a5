#include "src/model/generate.h"

#include <fmt/format.h>

#include <memory>

#include "recipes/commands/stage_model.h"
#include "recipes/commands/verbs.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  std::string stage, prompt;
  GenerateOptions options;
};

void continue_prompt(const Flags& flags) {
  start_torch(0);
  const auto [loaded, tokenizer] = load_stage_model(flags.stage);
  std::vector<int64_t> ids = {tokenizer.eos_id()};  // a document starts after the last one's end
  for (const int32_t id : tokenizer.encode(flags.prompt)) ids.push_back(id);
  const std::vector<int64_t> added = generate(loaded.model, ids, tokenizer.eos_id(), flags.options);
  const std::vector<int32_t> added_ids(added.begin(), added.end());
  fmt::print("{}{}\n", flags.prompt,
             flags.prompt.empty() ? tokenizer.decode(added_ids) : tokenizer.decode_continuation(added_ids));
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb = add_verb(app, "generate", "continue a prompt",
                            "coppice generate runs/demo/long --prompt \"The tree\" --max-new-tokens 40");
  verb->add_option("stage", flags->stage, "stage folder of a run, for instance runs/demo/long")->required();
  verb->add_option("--prompt", flags->prompt, "text to continue")->required();
  verb->add_option("--max-new-tokens", flags->options.max_new_tokens, "tokens to add at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  verb->add_option("--sampling-temperature", flags->options.sampling_temperature, "0 = greedy")
      ->check(CLI::Range(0.0, 100.0));
  verb->add_option("--seed", flags->options.seed, "of the sampling stream");
  verb->callback([flags, &action] { action = [flags] { continue_prompt(*flags); }; });
}

}  // namespace coppice
