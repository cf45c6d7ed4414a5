#include "recipes/stages/tokenize_domain.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/signals.h"
#include "src/text/documents.h"
#include "src/tokens/token_shard_writer.h"

namespace coppice {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{1} << 20;  // for each thread: a tenth of a second

struct Pending {
  uint64_t document_hash;
  TokenShardWriter* writer;
  std::string text;
};

/// Threads of its own, which are gone afterwards: a process that has used torch's cannot be forked.
std::vector<std::vector<int32_t>> encode(const Tokenizer& tokenizer, const std::vector<Pending>& batch,
                                         int num_threads) {
  std::vector<std::vector<int32_t>> ids(batch.size());
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < batch.size(); i = next++) ids[i] = tokenizer.encode(batch[i].text);
  };
  std::vector<std::future<void>> others;
  for (int t = 1; t < num_threads; ++t) others.push_back(std::async(std::launch::async, work));
  work();
  for (std::future<void>& other : others) other.get();
  return ids;
}

void check_stop() {
  if (stop_requested()) throw Stopped("stopped while tokenizing; finished shards are kept, run again to go on");
}

}  // namespace

TokenizingProgress::TokenizingProgress(uint64_t total_bytes) : line_("data", total_bytes / 1000, "kB") {}

void TokenizingProgress::update(uint64_t bytes, uint64_t tokens) {
  tokens_ += tokens;
  const double seconds = monotonic_s() - begin_s_;
  line_.update((done_bytes_ + bytes) / 1000,
               {{"", format_count(static_cast<double>(tokens_) / std::max(seconds, 1e-3)) + " tok/s"}});
}

void tokenize_domain(const Recipe& recipe, size_t domain_index, const CorpusSurvey& survey, const Tokenizer& tokenizer,
                     const std::filesystem::path& data_folder, TokenizingProgress& progress) {
  const DomainOptions& domain = recipe.data.domains[domain_index];
  const auto shard_tokens = static_cast<uint64_t>(recipe.data.shard_tokens);
  const auto writer_in = [&](const char* kind) {
    return TokenShardWriter(data_folder / kind / domain.name, domain.name, tokenizer.vocab_size(), tokenizer.eos_id(),
                            tokenizer.fingerprint(), shard_tokens);
  };
  TokenShardWriter train = writer_in("tokens"), heldout = writer_in("heldout");
  RepeatedTexts repeated(survey);
  const int num_threads = at::get_num_threads();
  uint64_t documents = 0, heldout_documents = 0, bytes_read = 0, batch_bytes = 0;
  std::vector<Pending> batch;
  const auto encode_batch = [&] {
    check_stop();
    const std::vector<std::vector<int32_t>> ids = encode(tokenizer, batch, num_threads);
    uint64_t tokens = 0;
    for (size_t i = 0; i < batch.size(); ++i) {
      batch[i].writer->add(batch[i].document_hash, ids[i], batch[i].text.size());
      tokens += ids[i].size() + 1;
    }
    batch.clear();
    batch_bytes = 0;
    progress.update(bytes_read, tokens);
  };
  for_each_document(
      domain.path,
      [&](Document&& document) {
        const bool held = is_heldout(document.id, recipe.data.heldout_share);
        ++documents;
        heldout_documents += held;
        if (!held) repeated.look(document.text);
        TokenShardWriter& writer = held ? heldout : train;
        if (writer.skip()) return check_stop();
        batch_bytes += document.text.size();
        batch.push_back({document_hash(document.id), &writer, std::move(document.text)});
        if (batch_bytes >= kBatchBytes * static_cast<uint64_t>(num_threads)) encode_batch();
      },
      corpus_options(recipe, domain), &bytes_read);
  encode_batch();
  progress.finish_domain(bytes_read);
  if (train.num_tokens() == 0) throw UserError::bad_file(domain.path, "no document is left to train on");
  if (heldout_documents == 0)
    log_warning(fmt::format(
        "domain '{}': none of its {} documents falls into data.heldout_share = {}; it is trained on but not evaluated",
        domain.name, documents, recipe.data.heldout_share));
  else
    heldout.finish();
  make_folder(data_folder / "corpus");
  write_file_atomically(data_folder / "corpus" / (domain.name + ".json"),
                        seal(corpus_record(recipe, domain_index, survey, repeated)));
  train.finish();  // last: its manifest marks the domain as whole
  log_info(fmt::format("domain '{}': {} documents, {} tokens ({} held out)", domain.name, documents,
                       format_count(static_cast<double>(train.num_tokens())),
                       format_count(static_cast<double>(heldout.num_tokens()))));
}

}  // namespace coppice
