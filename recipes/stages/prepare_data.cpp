#include "recipes/stages/prepare_data.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "recipes/language/sources.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/log.h"
#include "src/data/tokenize_domain.h"
#include "src/text/corpus_record.h"
#include "src/text/corpus_sha256.h"
#include "src/tokens/make_tokenizer.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

std::vector<CorpusDomain> corpus_domains(const Recipe& recipe) {
  std::vector<CorpusDomain> domains;
  for (const DomainOptions& domain : recipe.data.domains)
    domains.push_back({.name = domain.name,
                       .path = domain.path,
                       .reading = corpus_options(recipe, domain),
                       .is_gone = recipe.sources->holds(domain.path)});
  return domains;
}

/// The domains that are not whole, tokenized one after the other.
void tokenize(const Recipe& recipe, const SurveyOptions& corpus, const CorpusSurvey& survey,
              const std::vector<size_t>& missing, const Tokenizer& tokenizer, const fs::path& folder) {
  uint64_t bytes = 0;
  for (const size_t place : missing) bytes += stored_bytes(corpus.domains[place].path);
  TokenizingProgress progress(bytes);
  for (const size_t place : missing)
    tokenize_domain({.domain = corpus.domains[place],
                     .sources = recipe.data.domains[place].rights,
                     .heldout_share = corpus.heldout_share,
                     .tuning_share = corpus.tuning_share,
                     .shard_tokens = static_cast<uint64_t>(recipe.data.shard_tokens),
                     .num_threads = at::get_num_threads(),
                     .data_folder = folder},
                    survey, place, tokenizer, progress);
}

}  // namespace

CorpusOptions corpus_options(const Recipe& recipe, const DomainOptions& domain) {
  return {.text_key = domain.text_key, .max_bad = recipe.data.max_bad};
}

Json data_identity(const Recipe& recipe) {
  Json domains = Json::array();
  for (const DomainOptions& domain : recipe.data.domains) {
    domains.push_back({{"name", domain.name}, {"sha256", recipe.sources->look_text("corpus", domain.path, [&] {
                                                 return corpus_sha256(domain.path);
                                               })}});
    if (domain.text_key != DomainOptions().text_key) domains.back()["text_key"] = domain.text_key;
    if (std::ranges::any_of(domain.rights, [](const SourceRights& source) { return !source.stages.empty(); }))
      domains.back()["sources"] = rights_json(domain.rights);
  }
  Json tokenizer = {{"kind", recipe.tokenizer.kind}, {"vocab_size", recipe.tokenizer.vocab_size}};
  if (recipe.tokenizer.path.empty())
    tokenizer.update({{"character_coverage", recipe.tokenizer.character_coverage},
                      {"training_bytes", recipe.tokenizer.training_bytes}});
  else
    tokenizer["sha256"] = recipe.sources->look_text("file", recipe.tokenizer.path, [&] {
      const Tokenizer& given = recipe.sources->tokenizer(recipe.tokenizer.path);
      return given.is_byte_level() ? given.fingerprint() : sha256_hex(given.model_bytes());
    });
  Json identity = {{"kind", "data"},
                   {"version", 1},
                   {"domains", domains},
                   {"heldout_share", recipe.data.heldout_share},
                   {"shard_tokens", recipe.data.shard_tokens},
                   {"tokenizer", tokenizer}};
  if (recipe.data.tuning_share > 0) identity["tuning_share"] = recipe.data.tuning_share;
  return identity;
}

SurveyOptions survey_options(const Recipe& recipe, bool with_sample) {
  SurveyOptions options{.domains = corpus_domains(recipe),
                        .heldout_share = recipe.data.heldout_share,
                        .tuning_share = recipe.data.tuning_share};
  if (with_sample)
    options.sample_bytes = static_cast<uint64_t>(recipe.tokenizer.training_bytes) / recipe.data.domains.size();
  return options;
}

PreparedData prepare_data(const Recipe& recipe, RunFolder& run, const Json& identity) {
  const fs::path folder = run.stage("data");
  const std::string asked = fingerprint(identity);
  const double begin_s = monotonic_s();
  run.begin_stage("data", asked, identity);
  std::vector<size_t> missing;
  for (size_t i = 0; i < recipe.data.domains.size(); ++i)
    if (!fs::exists(folder / "tokens" / recipe.data.domains[i].name / "manifest.json")) missing.push_back(i);
  const bool trains_tokenizer = recipe.tokenizer.path.empty() && !tokenizer_in(folder / "tokenizer");
  const bool worked = !missing.empty();
  {
    const SurveyOptions corpus = survey_options(recipe, trains_tokenizer);
    CorpusSurvey survey;
    if (worked || trains_tokenizer) survey = survey_corpus(corpus);
    const auto given = [&]() -> const Tokenizer& { return recipe.sources->tokenizer(recipe.tokenizer.path); };
    const Tokenizer tokenizer = make_tokenizer(recipe.tokenizer, given, folder / "tokenizer", survey.sample);
    survey.sample = {};
    tokenize(recipe, corpus, survey, missing, tokenizer, folder);
    if (worked)
      for (const CorpusNote& note : corpus_notes(folder)) log_warning(fmt::format("{}: {}", note.about, note.text));
  }
  PreparedData data = open_prepared(folder, asked);
  if (data.heldout.empty())
    throw UserError::recipe(
        "data.heldout_share",
        fmt::format("got {}: no document at all is held out, so nothing could be evaluated; raise it",
                    recipe.data.heldout_share));
  if (recipe.data.tuning_share > 0 && data.tuning.empty())
    throw UserError::recipe(
        "data.tuning_share",
        fmt::format("got {}: no document at all is set aside for tuning; raise it", recipe.data.tuning_share));
  if (worked) run.add_seconds("data", monotonic_s() - begin_s);
  return data;
}

PreparedData open_data(const std::filesystem::path& run_root) {
  return open_prepared(run_root / "data", begun_fingerprint(run_root / "data"));
}

}  // namespace coppice
