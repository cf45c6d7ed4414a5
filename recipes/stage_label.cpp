// label: the uncut model reads the training tokens once and its top-1 choices are stored, keyed by (shard, token offset).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "recipes/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/data/label_jsonl.h"
#include "src/model/parameters.h"
#include "teacher/label.h"

namespace coppice {
namespace {

using WantedTokens = std::map<std::string, std::vector<std::vector<char>>>;  // domain -> shard -> one flag per token

/// The tokens that the readers of these labels will draw. Walks their sample order, which is a pure function of the recipe.
WantedTokens used_tokens(const StageContext& context) {
  WantedTokens wanted;
  for (const auto& [domain, shards] : context.data.train)
    for (const TokenShardInfo& shard : shards.shards()) wanted[domain].emplace_back(shard.tokens, 0);
  for (const Stage& reader : context.recipe.stages) {
    const auto* train = std::get_if<TrainStage>(&reader.options);
    if (train == nullptr || std::ranges::find(train->labels, context.stage.name) == train->labels.end()) continue;
    const TrainingOptions& training = train->training;
    Loader loader(
        context.data.shards_of(training.mixture), training.mixture,
        {.seq_len = training.seq_len, .document_mask = training.document_mask, .seed = training.data_seed ? training.data_seed : context.recipe.seed});
    for (int64_t step = 0; step < training.steps(); ++step)
      for (const Span& span : loader.next(training.rows()).spans) {
        std::vector<char>& flags = wanted[training.mixture[static_cast<size_t>(span.domain)].domain][static_cast<size_t>(span.shard)];
        std::fill_n(flags.begin() + static_cast<std::ptrdiff_t>(span.offset), span.length, 1);
      }
  }
  return wanted;
}

/// Labels made elsewhere become caches like ours, a domain at a time.
Json run_import(StageContext& context, const LabelStage& options) {
  LabelTransfer total;
  for (const auto& [domain, shards] : context.data.train) {
    LabelFingerprint fingerprint = label_fingerprint(context, context.stage.name);
    fingerprint.token_manifest_sha256 = shards.manifest_sha256();
    const LabelTransfer some =
        import_labels(find_label_file(options.import, domain, context.stage.where), shards, fingerprint, context.folder() / "labels" / domain);
    total.documents += some.documents;
    total.tokens += some.tokens;
    total.labelled += some.labelled;
    total.padded_ids += some.padded_ids;
    if (stop_requested()) throw Stopped(fmt::format("stopped after the labels of '{}'; run again to go on", domain));
  }
  log_info(fmt::format("stage '{}': {} documents, {} tokens, {} labelled", context.stage.name, total.documents, total.tokens, total.labelled));
  return {{"tokens", total.labelled}, {"results", {{"documents", total.documents}, {"padded_ids", total.padded_ids}}}};
}

}  // namespace

Json run_label(StageContext& context) {
  const auto& options = std::get<LabelStage>(context.stage.options);
  if (!options.import.empty()) return run_import(context, options);
  const LoadedModel teacher = load_model(context.model_folder(options.teacher));
  const LabelRule rule{.window_rule = options.window_rule, .context = options.context, .overlap = options.overlap, .batch_tokens = options.batch_tokens};
  const bool all = options.coverage == "all";
  const WantedTokens wanted = all ? WantedTokens() : used_tokens(context);
  uint64_t total = 0;
  for (const auto& [domain, shards] : context.data.train) total += all ? shards.num_tokens() : 0;
  for (const auto& [domain, shards] : wanted)
    for (const std::vector<char>& flags : shards) total += static_cast<uint64_t>(std::ranges::count(flags, 1));

  Progress progress(context.stage.name, total, "token");
  uint64_t done = 0, bytes = 0;
  const double begin_s = monotonic_s();
  struct Shard {
    std::string domain;
    const TokenShards* shards;
    LabelCacheWriter* writer;
    size_t number;
  };
  std::vector<std::unique_ptr<LabelCacheWriter>> writers;
  std::vector<Shard> waiting;
  for (const auto& [domain, shards] : context.data.train) {
    LabelFingerprint fingerprint = label_fingerprint(context, context.stage.name);
    fingerprint.token_manifest_sha256 = shards.manifest_sha256();
    writers.push_back(std::make_unique<LabelCacheWriter>(context.folder() / "labels" / domain, shards, fingerprint));
    for (size_t shard = 0; shard < shards.shards().size(); ++shard) waiting.push_back({domain, &shards, writers.back().get(), shard});
  }
  const LabelFingerprint tier = label_fingerprint(context, context.stage.name);
  while (!waiting.empty()) {
    const size_t before_round = waiting.size();
    std::erase_if(waiting, [&](const Shard& work) {
      const std::vector<char> flags = all ? std::vector<char>() : wanted.at(work.domain)[work.number];  // empty = every token
      const uint64_t before = done, in_shard = all ? work.shards->shards()[work.number].tokens : static_cast<uint64_t>(std::ranges::count(flags, 1));
      if (!work.writer->has(work.number)) {
        const auto claim = work.writer->claim(work.number);
        if (claim == nullptr) return false;  // another process labels it
        const auto show = [&](uint64_t tokens) {
          if (stop_requested())
            throw Stopped(fmt::format("stopped while labelling shard {} of '{}'; finished shards are kept, run again to go on", work.number, work.domain));
          done = before + std::min(tokens, in_shard);  // windows own a little more than what is asked for
          progress.update(done, {{"tok/s", format_count(static_cast<double>(done) / (monotonic_s() - begin_s))}});
        };
        if (!work.writer->has(work.number))
          work.writer->write(work.number, label_shard_tier(teacher.model, *work.shards, work.number, rule, tier, show, flags));
      }
      done = before + in_shard;
      return true;
    });
    if (waiting.size() < before_round) continue;
    if (stop_requested()) throw Stopped("stopped while another process labels the last shards; run again to go on");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(context.folder() / "labels"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  progress.finish(fmt::format("{} tokens labelled, {} on disk", format_count(static_cast<double>(total)), format_bytes(static_cast<double>(bytes))));
  return {{"tokens", total},
          {"flops", forward_flops_per_token(teacher.model.config, options.context) * static_cast<double>(total)},
          {"results", {{"label_bytes", bytes}}}};
}

}  // namespace coppice
