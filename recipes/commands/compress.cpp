#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "recipes/commands/verbs.h"
#include "recipes/compress/write_recipe.h"
#include "src/base/errors.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

struct Flags {
  CompressRequest request;
  std::string params, bytes, tokens, name, out;
  int64_t channels = 0;
  bool dry_run = false;

  /// The request with its texts read.
  CompressRequest parsed() const {
    CompressRequest parsed = request;
    const int given = !params.empty() + !bytes.empty() + (channels != 0);
    if (given != 1)
      throw UserError::recipe("compress", fmt::format("got {} budgets, expected one of --params 0.8x, --bytes 80MB and "
                                                      "--intermediate-size 1024",
                                                      given));
    parsed.budget = !params.empty()  ? parse_parameters(params)
                    : !bytes.empty() ? parse_bytes(bytes)
                                     : Budget{Budget::Kind::channels, static_cast<double>(channels)};
    if (!tokens.empty()) parsed.tokens = parse_tokens(tokens);
    if (parsed.tokens == 0 && parsed.hours == 0) parsed.hours = 1;
    parsed.model = plain_path(parsed.model, "MODEL");
    parsed.text = plain_path(parsed.text, "--text");
    std::ranges::sort(parsed.formats);
    parsed.formats.erase(std::ranges::unique(parsed.formats).begin(), parsed.formats.end());
    if (!parsed.quantization.empty() && std::ranges::find(parsed.formats, "gguf") == parsed.formats.end())
      throw UserError::recipe("--quantization", "got no --format gguf, which is what is quantised; add it");
    return parsed;
  }
};

void compress(const Flags& flags) {
  const CompressRequest request = flags.parsed();
  start_torch(request.threads);
  const CompressSource source = open_source(request.model);
  const CompressTarget target = choose_target(source.config, request, file_basis(source.tokenizer, request.formats));
  const CompressPlace place = place_of(flags.name, flags.out, source, target);
  const bool begun = is_begun(place, request);
  fmt::print("{}", begun ? fmt::format("{} is there: the run goes on with it\n", place.file.string())
                         : write_recipe(request, source, target, place, flags.dry_run));
  flush_result();
  if (flags.dry_run) return;
  run_recipe({.recipe_file = place.file.string(), .overrides = {}, .unset = {}, .out = place.out, .allow_change = {}});
  fmt::print("{}", result_text(place.root));
}

}  // namespace

void add_compress(CLI::App& app, Action& action) {
  const auto flags = std::make_shared<Flags>();
  flags->request.formats = {"hf"};
  CLI::App* verb = add_verb(app, "compress", "write a recipe that makes a model smaller within a budget, and run it",
                            "coppice compress models/smol --text texts --params 0.8x --hours 1 --format hf");
  verb->add_option("model", flags->request.model, "Hugging Face folder or GGUF file")->required();
  verb->add_option("--text", flags->request.text, "folder or file of text to learn from and to measure on")->required();
  verb->add_option("--params", flags->params, "at most so many parameters: 0.8x of the model's, or 108e6");
  verb->add_option("--bytes", flags->bytes, "at most so large a file: 80MB (the GGUF's, or the folder's without one)");
  verb->add_option("--intermediate-size", flags->channels, "FFN channels of every layer, a multiple of 32")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
  CLI::Option* hours = verb->add_option("--hours", flags->request.hours,
                                        "the whole run takes about so long: speed is measured first; default 1")
                           ->check(CLI::Range(1e-4, 1e5));
  verb->add_option("--tokens", flags->tokens, "tokens of recovery instead, for instance 3e5")->excludes(hours);
  verb->add_option("--format", flags->request.formats, "gguf, hf or both")
      ->delimiter(',')
      ->check(CLI::IsMember({"gguf", "hf"}));
  verb->add_option("--quantization", flags->request.quantization, "of the GGUF; chosen by --bytes, otherwise q8_0")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0"}));
  verb->add_option("--name", flags->name, "of recipe and run; default <model>-<channels>");
  verb->add_option("-o,--out", flags->out, "run folder; default runs/<name>");
  verb->add_option("--threads", flags->request.threads, "CPU threads; 0 = as coppice run chooses them")
      ->check(CLI::Range(0, 4096));
  verb->add_flag("--dry-run", flags->dry_run, "say the plan; write and start nothing");
  verb->callback([flags, &action] { action = [flags] { compress(*flags); }; });
}

}  // namespace coppice
