// label: the uncut model reads the training tokens once and its choices are stored, keyed by (shard, token offset); or
// labels made elsewhere are taken over.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "recipes/stages/context.h"
#include "recipes/stages/label.h"
#include "recipes/stages/sample_stream.h"
#include "recipes/stages/stored_labels.h"
#include "recipes/stages/train.h"
#include "src/base/errors.h"
#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/label_cache_writer.h"
#include "src/data/label_import.h"
#include "src/data/label_jsonl.h"
#include "src/model/parameters.h"
#include "src/text/corpus_sha256.h"
#include "teacher/label.h"

namespace coppice {
namespace {

using WantedTokens = std::map<std::string, std::vector<TokenRuns>>;  // domain -> shard

WantedTokens all_tokens(const StageContext& context) {
  WantedTokens wanted;
  for (const auto& [domain, shards] : context.data.train)
    for (const TokenShardInfo& shard : shards.shards()) wanted[domain].push_back({{0, shard.tokens}});
  return wanted;
}

/// The tokens that the readers of these labels will draw while they distil. Walks their sample order, which is a pure
/// function of the recipe.
WantedTokens used_tokens(const StageContext& context) {
  WantedTokens wanted;
  for (const auto& [domain, shards] : context.data.train) wanted[domain].resize(shards.shards().size());
  for (const Stage* reader : readers_of(context.recipe, context.stage.name)) {
    const TrainingOptions& training = reader->get<TrainStage>().training;
    const auto [first, last] = reader->get<TrainStage>().distilling_steps();
    Loader loader(context.data.shards_of(training.mixture), training.mixture,
                  loader_options(context, *reader, training));
    for (int64_t step = 0; step < last; ++step) {
      const std::vector<Span> spans = loader.next_spans(training.rows());
      if (step < first) continue;
      for (const Span& span : spans)
        wanted[training.mixture[static_cast<size_t>(span.domain)].domain][static_cast<size_t>(span.shard)].push_back(
            {span.offset, span.offset + static_cast<uint64_t>(span.length)});
    }
    for (auto& [domain, shards] : wanted)
      for (TokenRuns& runs : shards) runs = merge_runs(std::move(runs));
  }
  return wanted;
}

/// Labels made elsewhere become caches like ours, a domain at a time.
Json run_import(StageContext& context, const LabelStage& options) {
  LabelTransfer total;
  const std::string hash = corpus_sha256(options.import);
  make_folder(context.folder() / "labels");
  remove_temporaries(context.folder() / "labels");
  for (const auto& [domain, shards] : context.data.train) {
    const std::filesystem::path file = find_label_file(options.import, domain, context.stage.where);
    LabelFingerprint fingerprint =
        read_label_header(file).value_or(LabelFingerprint{.teacher_sha256 = "import " + hash, .window_rule = "given"});
    if (!options.import_teacher.empty()) fingerprint.teacher_sha256 = options.import_teacher;
    fingerprint.tokenizer_sha256 = shards.tokenizer_sha256();
    fingerprint.vocab_size = shards.vocab_size();
    fingerprint.token_manifest_sha256 = shards.manifest_sha256();
    options.describe(fingerprint);
    const LabelTransfer some =
        import_labels(file, shards, fingerprint, context.folder() / "labels" / domain,
                      {.format = options.import_format, .low_mass = options.low_mass, .stage = context.stage.name});
    total.documents += some.documents;
    total.tokens += some.tokens;
    total.labelled += some.labelled;
    total.left_out += some.left_out;
    total.padded_ids += some.padded_ids;
    if (stop_requested()) throw Stopped(fmt::format("stopped after the labels of '{}'; run again to go on", domain));
  }
  log_info(fmt::format("stage '{}': {} documents, {} tokens, {} labelled", context.stage.name, total.documents,
                       total.tokens, total.labelled));
  return {
      {"tokens", total.labelled},
      {"results", {{"documents", total.documents}, {"left_out", total.left_out}, {"padded_ids", total.padded_ids}}}};
}

/// A cache of another run is verified where it lies; nothing is written beside it.
Json use_cache(const StageContext& context, const LabelStage& options) {
  uint64_t tokens = 0, bytes = 0;
  for (const auto& [domain, shards] : context.data.train) {
    const LabelCache cache(label_folder(context, context.stage.name, domain), shards,
                           label_fingerprint(context, context.stage.name, domain),
                           options.coverage == "all" ? LabelCoverage::all : LabelCoverage::some);
    tokens += cache.labelled();
    bytes += cache.bytes();
  }
  log_info(fmt::format("stage '{}': the labels of {} tokens in {} fit these token shards; used where they lie",
                       context.stage.name, format_count(static_cast<double>(tokens)), options.cache));
  return {{"tokens", 0}, {"results", {{"label_bytes", bytes}}}};
}

/// The stage's batch_tokens, or the number that was chosen when it began: whoever goes on with it rounds as the first
/// process did.
int64_t batch_tokens_of(const StageContext& context, const LabelStage& options, const ModelConfig& teacher) {
  if (options.is_drawn()) return options.context;  // a window, whatever batch_tokens says
  if (options.batch_tokens > 0) return options.batch_tokens;
  constexpr const char* kFormat = "coppice.label_batch";
  const std::filesystem::path path = context.folder() / "batch.json";
  if (std::filesystem::exists(path))
    return static_cast<int64_t>(unsigned_at(read_sealed(path, kFormat, 1), "batch_tokens", path.string()));
  const int64_t chosen = choose_label_batch(teacher, options.context, place(context.stage).device.is_cpu());
  write_file_atomically(path, seal({{"format", kFormat}, {"version", 1}, {"batch_tokens", chosen}}));
  return chosen;
}

}  // namespace

LabelledShards label_shards(const StageContext& context) {
  const auto& options = context.stage.get<LabelStage>();
  const LoadedModel teacher = load_model(context.model_folder(options.teacher), place(context.stage));
  const LabelRule rule{.window_rule = options.window_rule,
                       .context = options.context,
                       .overlap = options.overlap,
                       .batch_tokens = batch_tokens_of(context, options, teacher.model.config),
                       .teacher = fmt::format("stage '{}', the teacher of '{}'", options.teacher, context.stage.name)};
  const WantedTokens wanted = options.coverage == "all" ? all_tokens(context) : used_tokens(context);
  LabelledShards labelled{.batch_tokens = rule.batch_tokens};
  for (const auto& [domain, shards] : wanted)
    for (const TokenRuns& runs : shards) labelled.tokens += count_tokens(runs);

  struct Shard {
    std::string domain;
    const TokenShards* shards;
    LabelCacheWriter* writer;
    size_t number;
    LabelFingerprint fingerprint;
  };
  std::vector<std::unique_ptr<LabelCacheWriter>> writers;
  std::vector<Shard> waiting;
  for (const auto& [domain, shards] : context.data.train) {
    const LabelFingerprint fingerprint = label_fingerprint(context, context.stage.name, domain);
    writers.push_back(
        std::make_unique<LabelCacheWriter>(label_folder(context, context.stage.name, domain), shards, fingerprint));
    for (size_t shard = 0; shard < shards.shards().size(); ++shard)
      waiting.push_back({domain, &shards, writers.back().get(), shard, fingerprint});
  }
  labelled.total = waiting.size();
  Progress progress(context.stage.name, labelled.tokens, "token");
  uint64_t done = 0;
  const double begin_s = monotonic_s();
  while (!waiting.empty()) {
    const size_t before_round = waiting.size();
    std::erase_if(waiting, [&](const Shard& work) {
      const TokenRuns& runs = wanted.at(work.domain)[work.number];
      const uint64_t before = done, in_shard = count_tokens(runs);
      if (!work.writer->has(work.number)) {
        const auto claim = work.writer->claim(work.number);
        if (claim == nullptr) return false;  // another process labels it
        (void)COPPICE_FAILPOINT("label.claimed");
        const auto show = [&](uint64_t tokens) {
          if (stop_requested())
            throw Stopped(
                fmt::format("stopped while labelling shard {} of '{}'; finished shards are kept, run again to go on",
                            work.number, work.domain));
          done = before + tokens;
          progress.update(done, {{"tok/s", format_count(static_cast<double>(done) / (monotonic_s() - begin_s))}});
        };
        if (!work.writer->has(work.number)) {
          work.writer->write(work.number, label_shard_tier(teacher.model, *work.shards, work.number, rule,
                                                           work.fingerprint, show, runs));
          ++labelled.here;
        }
      }
      done = before + in_shard;
      return true;
    });
    if (waiting.size() < before_round) continue;
    if (stop_requested()) throw Stopped("stopped while another process labels the last shards; run again to go on");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
  progress.finish(fmt::format("{} tokens labelled, {} of {} shards by this process",
                              format_count(static_cast<double>(labelled.tokens)), labelled.here, labelled.total));
  return labelled;
}

Json run_label(StageContext& context) {
  const auto& options = context.stage.get<LabelStage>();
  if (!options.has_own_labels()) {
    Json body = options.import.empty() ? use_cache(context, options) : run_import(context, options);
    check_labels(context,
                 readers_of(context.recipe, context.stage.name));  // now, and not when the first of them begins
    return body;
  }
  const LabelledShards labelled = label_shards(context);
  const auto tokens = static_cast<double>(labelled.tokens);
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(context.folder() / "labels"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  Json results = {{"label_bytes", bytes}, {"batch_tokens", labelled.batch_tokens}};
  const std::string on_disk = format_bytes(static_cast<double>(bytes));
  if (options.is_drawn()) {
    log_info(fmt::format("stage '{}': {} on disk", context.stage.name, on_disk));
  } else {
    int64_t near_ties = 0;
    for (const auto& [domain, shards] : context.data.train)
      near_ties += count_near_ties(label_folder(context, context.stage.name, domain));
    results["near_ties"] = near_ties;
    log_info(fmt::format(
        "stage '{}': {} on disk; at {} of the labelled tokens ({:.4f}%) the two best logits lie within 1e-5 "
        "of each other: another batch shape may "
        "choose the other",
        context.stage.name, on_disk, near_ties, tokens > 0 ? 100 * static_cast<double>(near_ties) / tokens : 0.0));
  }
  return {{"tokens", labelled.tokens},
          {"flops",
           forward_flops_per_token(load_model_config(context.model_folder(options.teacher)), options.context) * tokens},
          {"results", results}};
}

}  // namespace coppice
