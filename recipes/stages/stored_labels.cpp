#include "recipes/stages/stored_labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "recipes/stages/label.h"
#include "recipes/stages/sample_stream.h"
#include "recipes/stages/train.h"
#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/checkpoint/checkpoint.h"
#include "src/data/label_alignment.h"

namespace coppice {
namespace {

const LabelStage& options_of(const StageContext& context, const std::string& label_stage) {
  return context.recipe.stage(label_stage).get<LabelStage>();
}

[[noreturn]] void refuse_gap(const StageContext& context, const Stage& reader, const std::string& label_stage,
                             const std::string& domain, const Span& span, int64_t step,
                             std::pair<uint64_t, uint64_t> gap) {
  throw UserError::bad_file(
      label_folder(context, label_stage, domain).string(),
      fmt::format(
          "no labels for tokens {} to {} in {} of domain '{}', which step {} of stage '{}' draws: '{}' does not cover "
          "it (coverage = \"all\" says "
          "so at once; a teacher labels what is missing{})",
          gap.first, gap.second - 1, context.data.train.at(domain).shards()[static_cast<size_t>(span.shard)].name,
          domain, step + 1, reader.name, label_stage,
          options_of(context, label_stage).has_own_labels() ? "" : "; coverage = \"some\" leaves it to the text"));
}

/// Tokens of a span without a label, the last ones of documents aside.
uint64_t count_unlabelled(const LabelCache& cache, const Span& span) {
  uint64_t count = 0;
  const uint64_t end = span.offset + static_cast<uint64_t>(span.length);
  for (uint64_t begin = span.offset; begin < end;) {
    const auto gap = cache.first_gap(static_cast<size_t>(span.shard), begin, end - begin);
    if (!gap) break;
    count += gap->second - gap->first;
    begin = gap->second;
  }
  return count;
}

/// Every token that the reader draws while it distils has a label, or may do without; no token is read. Returns the
/// first spans of each domain, enough to judge where its labels stand.
std::vector<std::vector<Span>> check_coverage(const StageContext& context, const Stage& reader,
                                              const std::string& label_stage,
                                              const std::vector<const LabelCache*>& labels) {
  const auto& options = reader.get<TrainStage>();
  const TrainingOptions& training = options.training;
  const bool some = options_of(context, label_stage).coverage == "some";
  Loader loader(context.data.shards_of(training.mixture), training.mixture, loader_options(context, reader, training));
  std::vector<std::vector<Span>> drawn(labels.size());
  std::vector<uint64_t> drawn_tokens(labels.size(), 0);
  uint64_t tokens = 0, unlabelled = 0;
  for (int64_t step = 0; step < training.steps(); ++step) {
    const std::vector<Span> spans = loader.next_spans(training.rows());
    if (!distils_at(options.distillation, step, training.steps())) continue;
    for (const Span& span : spans) {
      const auto domain = static_cast<size_t>(span.domain);
      const auto length = static_cast<uint64_t>(span.length);
      tokens += length;
      if (drawn_tokens[domain] < kAlignmentTokens) drawn[domain].push_back(span);
      drawn_tokens[domain] += length;
      if (some) {
        unlabelled += count_unlabelled(*labels[domain], span);
      } else if (const auto gap = labels[domain]->first_gap(static_cast<size_t>(span.shard), span.offset, length)) {
        refuse_gap(context, reader, label_stage, training.mixture[domain].domain, span, step, *gap);
      }
    }
  }
  if (unlabelled > 0 && &reader == &context.stage)
    log_info(fmt::format(
        "stage '{}': {:.2f}% of the tokens that it draws have no label of '{}' and are trained on the text alone",
        reader.name, 100 * static_cast<double>(unlabelled) / static_cast<double>(tokens), label_stage));
  return drawn;
}

LabelSample read_sample(const TokenShards& shards, const LabelCache& cache, const std::vector<Span>& spans) {
  LabelSample sample;
  std::vector<int64_t> tokens, labels;
  for (const Span& span : spans) {
    const auto shard = static_cast<size_t>(span.shard), length = static_cast<size_t>(span.length);
    tokens.resize(length);
    labels.resize(length);
    shards.read(shard, span.offset, length, tokens.data());
    cache.read(shard, span.offset, length, labels.data());
    auto document_end = std::ranges::upper_bound(shards.document_ends(shard), span.offset);
    for (size_t begin = 0; begin < length; ++document_end) {
      const size_t end = std::min<uint64_t>(length, *document_end - span.offset);
      sample.add(std::span(tokens).subspan(begin, end - begin), std::span(labels).subspan(begin, end - begin));
      begin = end;
    }
  }
  return sample;
}

}  // namespace

std::filesystem::path label_folder(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain) {
  const auto& options = options_of(context, label_stage);
  return options.cache.empty() ? context.run.stage(label_stage) / "labels" / domain
                               : label_cache(options.cache, domain);
}

LabelFingerprint label_fingerprint(const StageContext& context, const std::string& label_stage,
                                   const std::string& domain) {
  const auto& options = options_of(context, label_stage);
  LabelFingerprint fingerprint{.window_rule = options.window_rule,
                               .context = options.context,
                               .overlap = options.overlap,
                               .draw_seed = options.draw_seed};
  if (!options.has_own_labels()) fingerprint = read_label_fingerprint(label_folder(context, label_stage, domain));
  if (!options.teacher.empty()) load_model_config(context.model_folder(options.teacher), &fingerprint.teacher_sha256);
  fingerprint.tokenizer_sha256 = context.data.tokenizer->fingerprint();
  fingerprint.vocab_size = context.data.tokenizer->vocab_size();
  fingerprint.token_manifest_sha256 = context.data.train.at(domain).manifest_sha256();
  options.describe(fingerprint);
  return fingerprint;
}

LabelCache open_labels(const StageContext& context, const std::string& label_stage, const std::string& domain) {
  return {label_folder(context, label_stage, domain), context.data.train.at(domain),
          label_fingerprint(context, label_stage, domain),
          options_of(context, label_stage).coverage == "all" ? LabelCoverage::all : LabelCoverage::some};
}

void check_labels(const StageContext& context, const Stage& reader, const std::string& label_stage,
                  const std::vector<const LabelCache*>& labels) {
  const std::vector<std::vector<Span>> drawn = check_coverage(context, reader, label_stage, labels);
  for (size_t d = 0; d < drawn.size(); ++d) {
    const std::string& domain = reader.get<TrainStage>().training.mixture[d].domain;
    const LabelSample sample = read_sample(context.data.train.at(domain), *labels[d], drawn[d]);
    const LabelAlignment found = sample.judge(kAlignmentErrorRate / static_cast<double>(drawn.size()));
    if (found.moved())
      throw UserError::bad_file(
          label_folder(context, label_stage, domain).string(),
          fmt::format("the labels of stage '{}' in domain '{}' {}", label_stage, domain, found.complaint()));
    if (found.place == LabelAlignment::Place::unknown && &reader == &context.stage)
      log_info(
          fmt::format("stage '{}': the {} labels of '{}' in domain '{}' do not tell whether they are moved by one "
                      "place: too few, or too much alike",
                      reader.name, sample.labels(), label_stage, domain));
  }
}

void check_labels(const StageContext& context, const std::vector<const Stage*>& readers) {
  if (readers.empty()) return;
  std::map<std::string, LabelCache> labels;  // opened once: that reads them whole
  for (const auto& [domain, shards] : context.data.train)
    labels.emplace(domain, open_labels(context, context.stage.name, domain));
  for (const Stage* reader : readers) {
    std::vector<const LabelCache*> of_mixture;
    for (const MixtureEntry& entry : reader->get<TrainStage>().training.mixture)
      of_mixture.push_back(&labels.at(entry.domain));
    check_labels(context, *reader, context.stage.name, of_mixture);
  }
}

}  // namespace coppice
