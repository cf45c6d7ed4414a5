#include "recipes/command_labels.h"

#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/data/label_jsonl.h"

namespace coppice {
namespace {

void print(const LabelTransfer& transfer) { fmt::print("{} documents, {} tokens, {} labelled\n", transfer.documents, transfer.tokens, transfer.labelled); }

}  // namespace

void run_labels_export(const LabelsOptions& options) {
  const TokenShards shards(options.tokens);
  print(export_labels(options.cache, shards, options.file));
}

void run_labels_import(const LabelsOptions& options) {
  if (std::filesystem::exists(options.cache / "manifest.json"))
    throw UserError::recipe("--cache", fmt::format("{} exists already; name a folder to create", options.cache.string()));
  if (options.k < 1 || (options.tier != "topk" && options.k != 1))
    throw UserError::recipe("--top-k", fmt::format("got {}, expected 1, or more in tier topk", options.k));
  const TokenShards shards(options.tokens);
  const LabelFingerprint fingerprint{.teacher_sha256 = options.teacher,
                                     .tokenizer_sha256 = shards.tokenizer_sha256(),
                                     .vocab_size = shards.vocab_size(),
                                     .token_manifest_sha256 = shards.manifest_sha256(),
                                     .tier = options.tier,
                                     .k = options.k,
                                     .temperature = options.temperature,
                                     .window_rule = "given"};
  print(import_labels(options.file, shards, fingerprint, options.cache));
}

}  // namespace coppice
