// label: the uncut model reads the training tokens once and its top-1 choices are stored, keyed by (shard, token offset).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "recipes/stages.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/model/parameters.h"
#include "teacher/label.h"

namespace coppice {
namespace {

/// For every domain and shard, which documents the readers of these labels will draw from. Walks their sample order, which is a pure function of the recipe.
std::map<std::string, std::vector<std::vector<char>>> used_documents(const StageContext& context) {
  std::map<std::string, std::vector<std::vector<char>>> used;
  for (const Stage& reader : context.recipe.stages) {
    const auto* train = std::get_if<TrainStage>(&reader.options);
    if (train == nullptr || train->labels != context.stage.name) continue;
    const TrainingOptions& training = train->training;
    Loader loader(context.data.shards_of(training.mixture), training.mixture,
                  {.seq_len = training.seq_len, .document_mask = training.document_mask, .seed = training.data_seed ? training.data_seed : context.recipe.seed});
    for (int64_t step = 0; step < training.steps(); ++step)
      for (const Span& span : loader.next(training.rows()).spans) {
        const std::string& domain = training.mixture[static_cast<size_t>(span.domain)].domain;
        const TokenShards& shards = context.data.train.at(domain);
        auto& of_domain = used[domain];
        of_domain.resize(shards.shards().size());
        const auto shard = static_cast<size_t>(span.shard);
        const std::vector<uint64_t>& ends = shards.document_ends(shard);
        of_domain[shard].resize(ends.size(), 0);
        for (auto end = std::ranges::upper_bound(ends, span.offset); end != ends.end(); ++end) {
          of_domain[shard][static_cast<size_t>(end - ends.begin())] = 1;
          if (*end >= span.offset + static_cast<uint64_t>(span.length)) break;
        }
      }
  }
  return used;
}

}  // namespace

Json run_label(StageContext& context) {
  const auto& options = std::get<LabelStage>(context.stage.options);
  const LoadedModel teacher = load_model(context.model_folder(options.teacher));
  const LabelRule rule{.window_rule = options.window_rule, .context = options.context, .overlap = options.overlap, .batch_tokens = options.batch_tokens};
  const bool all = options.coverage == "all";
  const auto used = all ? std::map<std::string, std::vector<std::vector<char>>>() : used_documents(context);

  uint64_t total = 0;
  for (const auto& [domain, shards] : context.data.train) {
    if (all) total += shards.num_tokens();
    const auto of_domain = used.find(domain);
    if (of_domain == used.end()) continue;
    for (size_t shard = 0; shard < of_domain->second.size(); ++shard)
      for (size_t document = 0; document < of_domain->second[shard].size(); ++document)
        if (of_domain->second[shard][document]) total += shards.document_ends(shard)[document] - (document ? shards.document_ends(shard)[document - 1] : 0);
  }
  Progress progress(context.stage.name, total, "token");
  uint64_t done = 0, labelled = 0, bytes = 0;
  const double begin_s = monotonic_s();
  for (const auto& [domain, shards] : context.data.train) {
    LabelFingerprint fingerprint = label_fingerprint(context, context.stage.name);
    fingerprint.token_manifest_sha256 = shards.manifest_sha256();
    LabelCacheWriter writer(context.folder() / "labels" / domain, shards, fingerprint);
    const auto of_domain = used.find(domain);
    for (size_t shard = 0; shard < shards.shards().size(); ++shard) {
      std::vector<char> wanted;  // empty = every document
      if (!all) {
        wanted.assign(shards.document_ends(shard).size(), 0);
        if (of_domain != used.end() && shard < of_domain->second.size() && !of_domain->second[shard].empty()) wanted = of_domain->second[shard];
      }
      const uint64_t before = done;
      if (!writer.has(shard)) {
        const std::vector<int32_t> label = label_shard(teacher.model, shards, shard, rule, [&](uint64_t tokens) {
          if (stop_requested()) throw Stopped(fmt::format("stopped while labelling shard {} of '{}'; finished shards are kept, run again to go on", shard, domain));
          done = before + tokens;
          progress.update(done, {{"tok/s", format_count(static_cast<double>(done) / (monotonic_s() - begin_s))}});
        }, wanted);
        writer.write(shard, label);
      }
      const std::vector<uint64_t>& ends = shards.document_ends(shard);
      uint64_t wanted_tokens = 0;
      for (size_t document = 0; document < ends.size(); ++document)
        if (wanted.empty() || wanted[document]) wanted_tokens += ends[document] - (document ? ends[document - 1] : 0);
      done = before + wanted_tokens;
      labelled += wanted_tokens;
    }
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(context.folder() / "labels"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  progress.finish(fmt::format("{} tokens labelled, {} on disk", format_count(static_cast<double>(labelled)), format_bytes(static_cast<double>(bytes))));
  context.run.add_seconds(context.stage.name, monotonic_s() - begin_s);
  return {{"tokens", labelled}, {"flops", forward_flops_per_token(teacher.model.config, options.context) * static_cast<double>(labelled)}, {"results", {{"label_bytes", bytes}}}};
}

}  // namespace coppice
