// coppice labels: teacher labels from and for other programs, the label cache of one domain as JSONL, one document a
// line (docs/labels.md); and a helper for a label stage under way.
#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "recipes/commands/verbs.h"
#include "recipes/stages/label.h"
#include "src/base/errors.h"
#include "src/data/draw_numbers.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"

namespace coppice {
namespace {

/// A file of ours says itself what its labels are; what is given to import must agree with it.
struct LabelsFlags {
  std::filesystem::path tokens;  // a domain's token shards
  std::filesystem::path cache;   // a domain's labels: read by export, made by import
  std::filesystem::path file;    // .jsonl or .jsonl.zst
  // import
  std::optional<std::string> teacher;  // what the fingerprint says of where the labels come from
  std::optional<std::string> tier;     // topk
  std::optional<std::string> code;     // f16
  std::optional<int64_t> k, draws;     // 1
  std::optional<double> temperature;   // 1
  std::optional<double> proposal;      // 1
  std::string format = "coppice";      // or vllm
  bool low_mass = false;

  void add(CLI::App& verb) {
    verb.add_option("file", file, ".jsonl or .jsonl.zst, one document a line")->required();
    verb.add_option("--tokens", tokens, "token shards of the domain, for instance runs/demo/data/tokens/prose")
        ->required();
    verb.add_option("--cache", cache, "label folder of the domain, for instance runs/demo/labels/labels/prose")
        ->required();
  }
};

void print(const LabelTransfer& transfer) {
  fmt::print("{} documents, {} tokens, {} labelled\n", transfer.documents, transfer.tokens, transfer.labelled);
}

void export_file(const LabelsFlags& options) {
  const TokenShards shards(options.tokens);
  print(export_labels(options.cache, shards, options.file));
}

/// Ids and draws a token, as the flags say where they do.
void set_counts(const LabelsFlags& options, LabelFingerprint& fingerprint) {
  const bool sampled = fingerprint.has_draws();
  if (sampled && options.k) throw UserError::recipe("--top-k", "labels of tier sample have --draws instead");
  if (!fingerprint.is_drawn() && options.draws)
    throw UserError::recipe(
        "--draws", fmt::format("labels of tier {} are no draws, expected --tier sample or hybrid", fingerprint.tier));
  fingerprint.k = (sampled ? options.draws : options.k).value_or(fingerprint.k);
  if (fingerprint.k < 1 || (sampled ? fingerprint.k > kMaxDraws : !fingerprint.has_tail() && fingerprint.k != 1))
    throw UserError::recipe(sampled ? "--draws" : "--top-k",
                            fmt::format("got {}, expected 1, or more in tier {}", fingerprint.k,
                                        sampled ? fmt::format("sample (up to {})", kMaxDraws) : "topk or hybrid"));
  fingerprint.draws = fingerprint.has_tail_draws() ? options.draws.value_or(fingerprint.draws) : 0;
  if (!fingerprint.has_tail_draws()) return;
  if (fingerprint.draws < 1 || fingerprint.draws > kMaxDraws)
    throw UserError::recipe("--draws",
                            fmt::format("got {}, expected 1 to {} in tier hybrid", fingerprint.draws, kMaxDraws));
}

/// What they were drawn at.
void set_temperatures(const LabelsFlags& options, LabelFingerprint& fingerprint) {
  fingerprint.temperature = options.temperature.value_or(fingerprint.temperature);
  if (options.proposal && !fingerprint.has_draws())
    throw UserError::recipe("--proposal-temperature",
                            fmt::format("is of draws of tier sample, not of tier {}", fingerprint.tier));
  fingerprint.proposal_temperature = options.proposal.value_or(fingerprint.proposal_temperature);
}

void import_file(const LabelsFlags& options) {
  if (std::filesystem::exists(options.cache / "manifest.json"))
    throw UserError::recipe("--cache",
                            fmt::format("{} exists already; name a folder to create", options.cache.string()));
  const TokenShards shards(options.tokens);
  const auto header = read_label_header(options.file);
  if (!header && !options.teacher)
    throw UserError::recipe("--teacher",
                            fmt::format("{} does not say where its labels come from; name it", options.file.string()));
  LabelFingerprint fingerprint = header.value_or(LabelFingerprint{.tier = "topk", .window_rule = "given"});
  fingerprint.teacher_sha256 = options.teacher.value_or(fingerprint.teacher_sha256);
  fingerprint.tier = options.tier.value_or(fingerprint.tier);
  fingerprint.code = options.code.value_or(fingerprint.code);
  if (fingerprint.code != LabelFingerprint().code && fingerprint.tier != "topk")
    throw UserError::recipe("--code",
                            fmt::format("'{}' is of tier topk, not of {}", fingerprint.code, fingerprint.tier));
  set_temperatures(options, fingerprint);
  fingerprint.tokenizer_sha256 = shards.tokenizer_sha256();
  fingerprint.vocab_size = shards.vocab_size();
  fingerprint.token_manifest_sha256 = shards.manifest_sha256();
  set_counts(options, fingerprint);
  if (fingerprint.is_drawn() && options.format != "coppice")
    throw UserError::recipe("--format", fmt::format("'{}' holds the most probable ids, and tier {} needs draws",
                                                    options.format, fingerprint.tier));
  print(import_labels(options.file, shards, fingerprint, options.cache,
                      {.format = options.format, .low_mass = options.low_mass, .stage = ""}));
}

void add_labels_export(CLI::App& labels, Action& action) {
  const auto flags = std::make_shared<LabelsFlags>();
  CLI::App* out = add_verb(labels, "export", "write a label cache as JSONL",
                           "coppice labels export prose.jsonl.zst --tokens runs/demo/data/tokens/prose --cache "
                           "runs/demo/labels/labels/prose");
  flags->add(*out);
  out->callback([flags, &action] { action = [flags] { export_file(*flags); }; });
}

void add_labels_import(CLI::App& labels, Action& action) {
  const auto flags = std::make_shared<LabelsFlags>();
  CLI::App* in = add_verb(labels, "import", "make a label cache from JSONL",
                          "coppice labels import prose.jsonl.zst --tokens runs/demo/data/tokens/prose --cache "
                          "served/prose --teacher served-7b --tier topk --top-k 20");
  flags->add(*in);
  in->footer(
      in->get_footer() +
      "\n\nA file that `labels export` wrote says what its labels are: the flags may be left out, and must agree "
      "with it.");
  in->add_option("--teacher", flags->teacher, "name of where the labels come from; part of the cache's fingerprint");
  in->add_option("--tier", flags->tier, "top1, top1_prob, topk (default), sample or hybrid")
      ->check(CLI::IsMember({"top1", "top1_prob", "topk", "sample", "hybrid"}));
  in->add_option("--top-k", flags->k, "ids a token at most, in tiers topk and hybrid");
  in->add_option("--code", flags->code, "how tier topk is stored: f16 (default) or q8")
      ->check(CLI::IsMember({"f16", "q8"}));
  in->add_option("--draws", flags->draws, "draws a token, in tiers sample and hybrid");
  in->add_option("--temperature", flags->temperature, "of the log-probabilities or draws")
      ->check(CLI::Range(kLeastTemperature, kMostTemperature));
  in->add_option("--proposal-temperature", flags->proposal, "of draws of tier sample with weights, relative to that")
      ->check(CLI::Range(1.0, kMostProposalTemperature));
  in->add_option("--format", flags->format,
                 "coppice, or vllm: prompt_logprobs, or lists of any number of ids, of documents that are cut short or "
                 "lack their end")
      ->check(CLI::IsMember({"coppice", "vllm"}));
  in->add_flag("--low-mass", flags->low_mass,
               "take log-probabilities of which most tokens hold less than 0.01 and no tail says so");
  in->callback([flags, &action] { action = [flags] { import_file(*flags); }; });
}

void add_labels_join(CLI::App& labels, Action& action) {
  struct Flags : RecipeFlags {
    std::string stage;
  };
  const auto flags = std::make_shared<Flags>();
  CLI::App* join = add_verb(labels, "join",
                            "label shards of a stage that `coppice run` is at in another process, until none is left",
                            "coppice labels join recipes/demo.toml --stage labels");
  flags->add(*join);
  flags->add_out(*join);
  join->add_option("--stage", flags->stage, "label stage of the recipe")->required();
  join->callback([flags, &action] { action = [flags] { join_labels(flags->parsed(), flags->stage); }; });
}

}  // namespace

void add_labels(CLI::App& app, Action& action) {
  CLI::App* labels = app.add_subcommand("labels", "teacher labels from and for other programs");
  labels->require_subcommand(1);
  add_labels_export(*labels, action);
  add_labels_import(*labels, action);
  add_labels_join(*labels, action);
}

}  // namespace coppice
