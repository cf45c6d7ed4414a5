#include "recipes/commands/command_labels.h"

#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"

namespace coppice {
namespace {

void print(const LabelTransfer& transfer) {
  fmt::print("{} documents, {} tokens, {} labelled\n", transfer.documents, transfer.tokens, transfer.labelled);
}

}  // namespace

void run_labels_export(const LabelsOptions& options) {
  const TokenShards shards(options.tokens);
  print(export_labels(options.cache, shards, options.file));
}

void run_labels_import(const LabelsOptions& options) {
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
  fingerprint.k = options.k.value_or(fingerprint.k);
  fingerprint.temperature = options.temperature.value_or(fingerprint.temperature);
  fingerprint.tokenizer_sha256 = shards.tokenizer_sha256();
  fingerprint.vocab_size = shards.vocab_size();
  fingerprint.token_manifest_sha256 = shards.manifest_sha256();
  if (fingerprint.k < 1 || (fingerprint.tier != "topk" && fingerprint.k != 1))
    throw UserError::recipe("--top-k", fmt::format("got {}, expected 1, or more in tier topk", fingerprint.k));
  print(import_labels(options.file, shards, fingerprint, options.cache,
                      {.format = options.format, .low_mass = options.low_mass, .stage = ""}));
}

}  // namespace coppice
