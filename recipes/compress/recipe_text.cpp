#include "recipes/compress/recipe_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "pruning/cut_axis.h"
#include "src/base/json.h"
#include "src/base/log.h"
#include "src/model/parameters.h"

namespace coppice {
namespace {

std::string toml_string(const std::string& text) { return Json(text).dump(); }  // its escapes are TOML's

std::string toml_list(const std::vector<std::string>& items) {
  std::vector<std::string> quoted;
  for (const std::string& item : items) quoted.push_back(toml_string(item));
  return fmt::format("[{}]", fmt::join(quoted, ", "));
}

std::string percent(double part, double whole) { return fmt::format("{:.1f}%", 100 * part / whole); }

std::string head_of(const Compression& c) {
  const CompressSource& source = c.source;
  std::string text = request_line(c.request) + "\n";
  text += fmt::format(
      "# Written by coppice compress. The line above finds this file again: the same command goes on with the run, and "
      "so "
      "does\n# coppice run {0}.toml. Every value below may be changed; coppice plan {0}.toml says what that costs.\n",
      c.name);
  text += fmt::format("name = {}\n", toml_string(c.name));
  if (c.request.threads > 0) text += fmt::format("threads = {}\n", c.request.threads);
  text += fmt::format(
      "\n[data]\nheldout_share = {}      # of the documents; never trained on, every number is measured "
      "on them\n\n[[data.domain]]\nname = \"text\"\npath = {}\n",
      heldout_share(c.text), toml_string(plain_path(c.request.text, "--text")));
  text += fmt::format(
      "\n[tokenizer]             # the model's own: its ids mean nothing under another\npath = {}\n"
      "vocab_size = {}\n",
      toml_string(source.path), source.config.vocab_size);
  text +=
      fmt::format("\n[model.source]          # the shape of {}\npreset = {}\n", source.path, toml_string(source.path));
  text += fmt::format(
      "\n[model.student]         # the same, its FFN layers cut: {} parameters of {}\n"
      "intermediate_size = {}   # of {}; a multiple of {}\n",
      count_parameters(c.target.config), count_parameters(source.config), c.target.width, source.width(), kWidthGrid);
  return text;
}

/// Keys of a stage's steps, looks and checkpoints.
std::string training_keys(const Schedule& s, int64_t tokens, int64_t eval_steps, int64_t checkpoint_steps) {
  return fmt::format(
      "tokens = {}\nseq_len = {}\nbatch_tokens = {}\nmicro_batch_tokens = {}\neval_tokens = {}\neval_steps = {}\n"
      "checkpoint_steps = {}\n",
      tokens, s.shape.seq_len, s.batch_tokens, s.shape.micro_batch_tokens, s.eval_tokens, eval_steps, checkpoint_steps);
}

std::string cut_stages(const Compression& c) {
  const Schedule& s = c.schedule;
  std::string text =
      fmt::format("\n[[stage]]\nname = \"dense\"\nkind = \"import\"\npath = {}\n", toml_string(c.source.path));
  text +=
      "\n# Which channels stay: scores learned through Soft-Top-K masks on the next-token loss. The weights are held "
      "still: so few\n"
      "# tokens would move them little, and the cut is comparable with the one-shot cut below, which has the same "
      "weights.\n"
      "[[stage]]\nname = \"masks\"\nkind = \"learn_masks\"\nfrom = \"dense\"\nfreeze_weights = true\n";
  text += fmt::format("calibration_tokens = {}\n", s.calibration_tokens);
  text += training_keys(s, s.mask_tokens, s.mask_eval_steps, s.mask_checkpoint_steps);
  text += "on_collapse = \"warn\"     # a suspicion on few tokens ends no run\ndata_seed = 2\n";
  text += "\n[[stage]]\nname = \"pruned\"\nkind = \"prune\"\nfrom = \"masks\"\n";
  text += fmt::format(
      "\n[[stage]]                # the comparison: what the activations alone would have kept\n"
      "name = \"cut_activation\"\nkind = \"prune\"\nfrom = \"dense\"\nscores = \"activation\"\n"
      "calibration_tokens = {}\n",
      s.calibration_tokens);
  return text;
}

std::string recovery_stages(const Compression& c) {
  const Schedule& s = c.schedule;
  std::string text = fmt::format(
      "\n# What the source says of every token that the recovery reads, in the very windows in which it is read: each "
      "once.\n"
      "# The {0} likeliest ids with their probabilities and the rest as one: a first choice alone says too little in "
      "a\n"
      "# vocabulary of {1}.\n"
      "[[stage]]\nname = \"labels\"\nkind = \"label\"\nteacher = \"dense\"\ncoverage = \"used\"\n"
      "window_rule = \"aligned\"\ncontext = {2}\ntier = \"topk\"\ntop_k = {0}\n"
      "code = \"q8\"              # a byte a probability teaches as two do\nbatch_tokens = {3}\n",
      s.shape.top_k, c.source.config.vocab_size, s.shape.seq_len, s.shape.read_batch_tokens);
  text +=
      "\n# 0.9 of the target is the teacher's, 0.1 the text. A rate of fine-tuning: the weights are good, and the cut "
      "is what\n"
      "# is to be mended. No decay, which would outweigh so few steps.\n"
      "[[stage]]\nname = \"core\"\nkind = \"train\"\nfrom = \"pruned\"\nlabels = \"labels\"\nloss = \"top_k\"\n"
      "teacher_weight = 0.9\noptimizer = \"adamw\"\nlr = 3e-4\nfinal_lr_ratio = 0.1\nweight_decay = 0.0\n"
      "drop_grad_norm = 1e4\n";
  text += training_keys(s, s.tokens, s.eval_steps, s.checkpoint_steps);
  text += "data_seed = 3\n";
  text += fmt::format(
      "\n[[stage]]\nname = \"scores\"\nkind = \"evaluate\"\n"
      "of = [\"dense\", \"cut_activation\", \"pruned\", \"core\"]\nteacher = \"dense\"\nseq_len = {}\n"
      "tokens = {}\nbatch_tokens = {}\nspeed_tokens = {}         # how fast each of them reads and writes\n",
      s.shape.seq_len, s.scored_tokens, s.shape.read_batch_tokens, kSpeedTokens);
  text += fmt::format(
      "\n[[stage]]                # read back and compared before it gets its name\nname = \"release\"\n"
      "kind = \"export\"\nfrom = \"core\"\nformats = {}\n",
      toml_list(c.request.formats));
  if (!c.target.dtype.empty())
    text += fmt::format("dtype = \"{}\"           # of the Hugging Face folder; f32 keeps every bit\n", c.target.dtype);
  if (!c.target.quantization.empty())
    text +=
        fmt::format("quantization = \"{}\"    # of the GGUF: f32, f16, bf16, q8_0 or q4_0\n", c.target.quantization);
  return text;
}

std::string files_of(const Compression& c) {
  std::vector<std::string> files;
  for (const std::string& format : c.request.formats)
    files.push_back(format == "gguf" ? fmt::format("a GGUF in {}", c.target.quantization)
                                     : fmt::format("a Hugging Face folder in {}", c.target.dtype));
  return fmt::format("{}", fmt::join(files, " and "));
}

}  // namespace

std::string compress_recipe(const Compression& c) { return head_of(c) + cut_stages(c) + recovery_stages(c); }

std::string compress_plan(const Compression& c, double seconds) {
  const Schedule& s = c.schedule;
  const auto source = static_cast<double>(count_parameters(c.source.config)),
             student = static_cast<double>(count_parameters(c.target.config));
  const auto count = [](int64_t tokens) { return format_count(static_cast<double>(tokens)); };
  std::string text = fmt::format(
      "{}: {} parameters, {} layers of {} FFN channels\n"
      "cut       {} channels stay in every layer ({}), which leaves {} parameters, {} of the model\n",
      c.source.path, format_count(source), c.source.config.num_hidden_layers, c.source.width(), c.target.width,
      percent(static_cast<double>(c.target.width), static_cast<double>(c.source.width())), format_count(student),
      percent(student, source));
  for (const std::string& line : c.target.considered) text += fmt::format("          {}\n", line);
  text += fmt::format("learn     which ones: masks on {} tokens of the text, the weights held still\n",
                      count(s.mask_tokens));
  text += fmt::format("label     {} tokens: the {} likeliest next ids by the uncut model\n", count(s.tokens),
                      s.shape.top_k);
  text +=
      fmt::format("recover   on these {} tokens, 0.9 of the target the uncut model's, 0.1 the text's, in {} steps\n",
                  count(s.tokens), s.steps());
  text += fmt::format("compare   with a cut by activation alone, on {} held-out tokens\n", count(s.scored_tokens));
  text += fmt::format("write     {}, about {}, read back and compared\n", files_of(c), format_bytes(c.target.bytes));
  text += fmt::format("text      about {} tokens in {}{}: the recovery reads {:.2g} of it\n",
                      format_count(c.text.tokens()), format_bytes(c.text.bytes),
                      c.text.whole ? "" : ", judged by a sample", static_cast<double>(s.tokens) / c.text.tokens());
  text += fmt::format("time      about {}{}\n", format_duration(seconds),
                      c.speeds.measured_in_s > 0 ? fmt::format("; {}", speeds_text(c.speeds))
                                                 : " by FLOPs alone; nothing was measured");
  text += fmt::format(
      "no promise  The model was trained on far more than {} tokens; what the cut loses beyond what they mend stays "
      "lost. "
      "How much that is\n            is not known before it is measured, and it is measured on text like yours: "
      "abilities "
      "that your text does not show may\n            suffer unseen. Longer runs recover more: --hours, --tokens, or "
      "core.tokens of the recipe.\n",
      count(s.tokens));
  return text;
}

}  // namespace coppice
