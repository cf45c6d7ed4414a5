#include "recipes/stages/prepare_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "recipes/language/sources.h"
#include "recipes/stages/survey_corpus.h"
#include "recipes/stages/tokenize_domain.h"
#include "recipes/stages/tokenizer_process.h"
#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/log.h"
#include "src/base/signals.h"
#include "src/text/documents.h"
#include "src/tokens/tokenizer_training.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

void check_stop() {
  if (stop_requested()) throw Stopped("stopped while reading the corpus; run again to go on");
}

/// The text itself stays as it is: the cuts are made for the trainer alone.
void warn_of_cuts(const std::vector<std::string>& texts) {
  TrainingCuts sum;
  size_t documents = 0;
  for (const std::string& text : texts) {
    const TrainingCuts cuts = for_each_training_line(text, [](std::string_view) {});
    documents += cuts.symbols + cuts.words > 0;
    sum.symbols += cuts.symbols;
    sum.words += cuts.words;
  }
  if (documents > 0)
    log_warning(
        fmt::format("training the tokenizer: {} of {} documents are cut for the trainer, which takes no words above {} "
                    "characters ({}) and no NUL "
                    "or U+2585 ({})",
                    documents, texts.size(), kMaxLineCharacters, sum.words, sum.symbols));
}

/// `texts`: what a tokenizer that is not there yet is trained on.
Tokenizer make_tokenizer(const Recipe& recipe, const fs::path& folder, const std::vector<std::string>& texts) {
  const fs::path model = folder / "tokenizer.model";
  if (!fs::exists(model)) {
    make_folder(folder);
    std::string bytes;
    if (!recipe.tokenizer.path.empty()) {
      bytes = read_file(recipe.tokenizer.path, uint64_t{64} << 20);
    } else {
      uint64_t total = 0;
      for (const std::string& text : texts) total += text.size();
      log_info(fmt::format("training the tokenizer: {} pieces on {} of text in {} documents",
                           recipe.tokenizer.vocab_size, format_bytes(static_cast<double>(total)), texts.size()));
      warn_of_cuts(texts);
      size_t document = 0, begin = 0;
      bytes = train_tokenizer_in_child(
          recipe.tokenizer, [&](std::string& line) {  // line by line: newline stays a byte piece
            while (document < texts.size()) {
              if (begin >= texts[document].size()) {
                ++document;
                begin = 0;
                continue;
              }
              const size_t end = std::min(texts[document].find('\n', begin), texts[document].size());
              line.assign(texts[document], begin, end - begin);
              begin = end + 1;
              if (!line.empty()) return true;
            }
            return false;
          });
    }
    write_file_atomically(model, bytes);
  }
  Tokenizer tokenizer = Tokenizer::load(model);
  if (tokenizer.vocab_size() != recipe.tokenizer.vocab_size)
    throw UserError::recipe("tokenizer.vocab_size",
                            fmt::format("got {}, but {} holds {} pieces", recipe.tokenizer.vocab_size,
                                        recipe.tokenizer.path, tokenizer.vocab_size()));
  return tokenizer;
}

PreparedData open_folders(const fs::path& data_folder, std::string identity_sha256) {
  PreparedData data{.fingerprint = std::move(identity_sha256)};
  data.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(data_folder / "tokenizer" / "tokenizer.model"));
  std::string manifests;
  for (auto [kind, into] : {std::pair{"tokens", &data.train}, {"heldout", &data.heldout}}) {
    if (!fs::exists(data_folder / kind)) continue;
    std::vector<fs::path> folders;
    for (const auto& entry : fs::directory_iterator(data_folder / kind))
      if (fs::exists(entry.path() / "manifest.json")) folders.push_back(entry.path());
    std::ranges::sort(folders);
    for (const fs::path& folder : folders) {
      TokenShards shards(folder);
      if (shards.tokenizer_sha256() != data.tokenizer->fingerprint())
        throw UserError::bad_file(folder.string(),
                                  fmt::format("tokens were made with another tokenizer: {} here, {} in data/tokenizer",
                                              shards.tokenizer_sha256(), data.tokenizer->fingerprint()));
      manifests += fmt::format("{} {} {}\n", kind, shards.domain(), shards.manifest_sha256());
      const std::string domain = shards.domain();
      into->emplace(domain, std::move(shards));
    }
  }
  data.tokens_sha256 = sha256_hex(manifests);
  return data;
}

}  // namespace

std::string corpus_sha256(const std::filesystem::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status))
    throw UserError::bad_file(path.string(), error && error != std::errc::no_such_file_or_directory
                                                 ? error.message()
                                                 : "no such corpus file or folder" + searched_from(path));
  if (!fs::is_directory(status)) {
    if (fs::is_regular_file(status) && stored_bytes(path) == 0)
      throw UserError::bad_file(path.string(), "the corpus file is empty");
    return sha256_file(path, check_stop);
  }
  const std::vector<std::string> files = corpus_files(path);
  if (files.empty())
    throw UserError::bad_file(path.string(),
                              fmt::format("the corpus folder holds no file ending in {}", kCorpusEndings));
  Sha256 hash;
  for (const std::string& file : files) hash.update(file + "\n" + sha256_file(path / file, check_stop) + "\n");
  return hash.hex();
}

std::vector<const TokenShards*> PreparedData::shards_of(const std::vector<MixtureEntry>& mixture) const {
  std::vector<const TokenShards*> shards;
  for (const MixtureEntry& entry : mixture) {
    const auto found = train.find(entry.domain);
    COPPICE_CHECK(found != train.end(), "no tokens of domain " + entry.domain);
    shards.push_back(&found->second);
  }
  return shards;
}

Json data_identity(const Recipe& recipe) {
  Json domains = Json::array();
  for (const DomainOptions& domain : recipe.data.domains) {
    domains.push_back({{"name", domain.name}, {"sha256", recipe.sources->look_text("corpus", domain.path, [&] {
                                                 return corpus_sha256(domain.path);
                                               })}});
    if (domain.text_key != DomainOptions().text_key) domains.back()["text_key"] = domain.text_key;
  }
  Json tokenizer = {{"kind", recipe.tokenizer.kind}, {"vocab_size", recipe.tokenizer.vocab_size}};
  if (recipe.tokenizer.path.empty())
    tokenizer.update({{"character_coverage", recipe.tokenizer.character_coverage},
                      {"training_bytes", recipe.tokenizer.training_bytes}});
  else
    tokenizer["sha256"] =
        recipe.sources->look_text("file", recipe.tokenizer.path, [&] { return sha256_file(recipe.tokenizer.path); });
  return {{"kind", "data"},
          {"version", 1},
          {"domains", domains},
          {"heldout_share", recipe.data.heldout_share},
          {"shard_tokens", recipe.data.shard_tokens},
          {"tokenizer", tokenizer}};
}

PreparedData prepare_data(const Recipe& recipe, RunFolder& run, const Json& identity) {
  const fs::path folder = run.stage("data");
  const std::string asked = fingerprint(identity);
  const double begin_s = monotonic_s();
  bool worked = false;
  run.begin_stage("data", asked, identity);
  {
    std::vector<size_t> missing;
    uint64_t bytes = 0;
    for (size_t i = 0; i < recipe.data.domains.size(); ++i) {
      const DomainOptions& domain = recipe.data.domains[i];
      if (fs::exists(folder / "tokens" / domain.name / "manifest.json")) continue;
      missing.push_back(i);
      bytes += stored_bytes(domain.path);
    }
    const bool trains_tokenizer =
        recipe.tokenizer.path.empty() && !fs::exists(folder / "tokenizer" / "tokenizer.model");
    worked = !missing.empty();
    CorpusSurvey survey;
    if (worked || trains_tokenizer) survey = survey_corpus(recipe, trains_tokenizer);
    const Tokenizer tokenizer = make_tokenizer(recipe, folder / "tokenizer", survey.sample);
    survey.sample = {};
    TokenizingProgress progress(bytes);
    for (const size_t domain : missing) tokenize_domain(recipe, domain, survey, tokenizer, folder, progress);
    if (worked)
      for (const CorpusNote& note : corpus_notes(folder)) log_warning(fmt::format("{}: {}", note.about, note.text));
  }
  PreparedData data = open_folders(folder, asked);
  if (data.heldout.empty())
    throw UserError::recipe(
        "data.heldout_share",
        fmt::format("got {}: no document at all is held out, so nothing could be evaluated; raise it",
                    recipe.data.heldout_share));
  if (worked) run.add_seconds("data", monotonic_s() - begin_s);
  return data;
}

PreparedData open_data(const std::filesystem::path& run_root) {
  return open_folders(run_root / "data", begun_fingerprint(run_root / "data"));
}

}  // namespace coppice
