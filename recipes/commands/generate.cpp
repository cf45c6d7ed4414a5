#include "src/model/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "recipes/commands/chat.h"
#include "recipes/commands/open_model.h"
#include "recipes/commands/placement_flags.h"
#include "recipes/commands/verbs.h"
#include "src/base/log.h"
#include "src/tensors/shape.h"
#include "src/tokens/text_stream.h"

namespace coppice {
namespace {

using Clock = std::chrono::steady_clock;

struct Flags {
  std::string stage, prompt;
  bool chat = false;
  std::vector<std::string> stops;
  GenerateOptions options;
  PlacementOptions placement;
};

void print_now(const std::string& text) {
  if (text.empty()) return;
  fmt::print("{}", text);
  std::fflush(stdout);
}

/// "first token after 0.021 s (5 tokens read), then 38.2 tokens/s"
std::string speed_text(size_t prompt_tokens, size_t added, double first_s, double rest_s) {
  std::string text = fmt::format("first token after {:.3f} s ({} tokens read)", first_s, prompt_tokens);
  if (added > 1)
    text += fmt::format(", then {} at {:.1f} tokens/s", added - 1, static_cast<double>(added - 1) / rest_s);
  return text;
}

void continue_prompt(const Flags& flags) {
  const Placement on = placed(flags.placement);
  start_torch(0);
  const Tokenizer tokenizer = open_tokenizer(flags.stage);
  const ChatTurn turn =
      flags.chat ? chat_turn(flags.stage, tokenizer, flags.prompt)
                 : ChatTurn{.ids = prompt_ids(flags.stage, tokenizer, flags.prompt), .ends = {tokenizer.eos_id()}};
  const LoadedModel loaded = open_weights(flags.stage, tokenizer, on);
  if (!flags.chat) print_now(flags.prompt);
  TextStream text(tokenizer, flags.stops, /*begins=*/flags.chat || flags.prompt.empty());
  const Clock::time_point begin = Clock::now();
  Clock::time_point first = begin;
  const std::vector<int64_t> added =
      generate(loaded.model, {turn.ids.begin(), turn.ids.end()}, tokenizer.eos_id(), flags.options, [&](int64_t id) {
        if (first == begin) first = Clock::now();
        if (std::ranges::find(turn.ends, id) != turn.ends.end()) return false;
        print_now(text.add(static_cast<int32_t>(id)));
        return !text.stopped();
      });
  const auto seconds = [](Clock::duration time) { return std::chrono::duration<double>(time).count(); };
  const double rest_s = seconds(Clock::now() - first);
  fmt::print("{}\n", text.finish());
  std::fflush(stdout);
  log_info(speed_text(turn.ids.size(), added.size(), seconds(first - begin), rest_s));
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* verb = add_verb(app, "generate", "continue a prompt",
                            "coppice generate runs/demo/long --prompt \"The tree\" --max-new-tokens 40");
  verb->add_option("stage", flags->stage, "stage folder of a run, for instance runs/demo/long")->required();
  verb->add_option("--prompt", flags->prompt, "text to continue")->required();
  verb->add_flag("--apply-chat-template", flags->chat,
                 "answer the prompt as a message: in the form that the model's own chat template gives it, up to the "
                 "end of the turn; prints the answer alone");
  verb->add_option("--max-new-tokens", flags->options.max_new_tokens, "tokens to add at most")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  verb->add_option("--sampling-temperature", flags->options.sampling_temperature, "0 = greedy")
      ->check(CLI::Range(0.0, 100.0));
  verb->add_option("--top-p", flags->options.top_p, "sample from the fewest tokens that hold this share")
      ->check(CLI::Range(1e-6, 1.0));
  verb->add_option("--stop", flags->stops, "text to stop before; may be given several times")
      ->take_all()
      ->allow_extra_args(false)
      ->check([](const std::string& stop) { return stop.empty() ? "an empty text stops nothing" : ""; }, "TEXT");
  verb->add_option("--seed", flags->options.seed, "of the sampling stream");
  add_placement(verb, flags->placement);
  verb->callback([flags, &action] { action = [flags] { continue_prompt(*flags); }; });
}

}  // namespace coppice
