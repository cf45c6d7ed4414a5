#include "src/data/tokenize_domain.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <nlohmann/json.hpp>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/signals.h"
#include "src/text/corpus_record.h"
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

namespace {

/// The two folders of a domain, fed batch by batch.
class DomainTokens {
 public:
  DomainTokens(const TokenizeOptions& options, const Tokenizer& tokenizer, TokenizingProgress& progress)
      : tokenizer_(tokenizer),
        num_threads_(options.num_threads),
        progress_(progress),
        train_(writer_in("tokens", options)),
        heldout_(writer_in("heldout", options)) {}

  /// `bytes_read`: of the corpus, with this document.
  void add(Document&& document, bool held, uint64_t bytes_read) {
    ++documents_;
    heldout_documents_ += held;
    TokenShardWriter& writer = held ? heldout_ : train_;
    if (writer.skip()) return check_stop();
    batch_bytes_ += document.text.size();
    batch_.push_back({document_hash(document.id), &writer, std::move(document.text)});
    if (batch_bytes_ >= kBatchBytes * static_cast<uint64_t>(num_threads_)) encode_batch(bytes_read);
  }

  void encode_batch(uint64_t bytes_read) {
    check_stop();
    const std::vector<std::vector<int32_t>> ids = encode(tokenizer_, batch_, num_threads_);
    uint64_t tokens = 0;
    for (size_t i = 0; i < batch_.size(); ++i) {
      batch_[i].writer->add(batch_[i].document_hash, ids[i], batch_[i].text.size());
      tokens += ids[i].size() + 1;
    }
    batch_.clear();
    batch_bytes_ = 0;
    progress_.update(bytes_read, tokens);
  }

  TokenShardWriter& train() { return train_; }
  TokenShardWriter& heldout() { return heldout_; }
  uint64_t documents() const { return documents_; }
  uint64_t heldout_documents() const { return heldout_documents_; }

 private:
  TokenShardWriter writer_in(const char* kind, const TokenizeOptions& options) const {
    return {options.data_folder / kind / options.domain.name,
            options.domain.name,
            tokenizer_.vocab_size(),
            tokenizer_.eos_id(),
            tokenizer_.fingerprint(),
            options.shard_tokens};
  }

  const Tokenizer& tokenizer_;
  int num_threads_;
  TokenizingProgress& progress_;
  TokenShardWriter train_, heldout_;
  uint64_t documents_ = 0, heldout_documents_ = 0, batch_bytes_ = 0;
  std::vector<Pending> batch_;
};

}  // namespace

void tokenize_domain(const TokenizeOptions& options, const CorpusSurvey& survey, size_t place,
                     const Tokenizer& tokenizer, TokenizingProgress& progress) {
  const CorpusDomain& domain = options.domain;
  DomainTokens tokens(options, tokenizer, progress);
  RepeatedTexts repeated(survey);
  uint64_t bytes_read = 0;
  const auto visit = [&](Document&& document) {
    const bool held = is_heldout(document.id, options.heldout_share);
    if (!held) repeated.look(document.text);
    tokens.add(std::move(document), held, bytes_read);
  };
  for_each_document(domain.path, visit, domain.reading, &bytes_read);
  tokens.encode_batch(bytes_read);
  progress.finish_domain(bytes_read);
  if (tokens.train().num_tokens() == 0)
    throw UserError::bad_file(domain.path.string(), "no document is left to train on");
  if (tokens.heldout_documents() == 0)
    log_warning(fmt::format(
        "domain '{}': none of its {} documents falls into data.heldout_share = {}; it is trained on but not evaluated",
        domain.name, tokens.documents(), options.heldout_share));
  else
    tokens.heldout().finish();
  make_folder(options.data_folder / "corpus");
  write_file_atomically(options.data_folder / "corpus" / (domain.name + ".json"),
                        seal(corpus_record(survey, place, repeated)));
  tokens.train().finish();  // last: its manifest marks the domain as whole
  log_info(fmt::format("domain '{}': {} documents, {} tokens ({} held out)", domain.name, tokens.documents(),
                       format_count(static_cast<double>(tokens.train().num_tokens())),
                       format_count(static_cast<double>(tokens.heldout().num_tokens()))));
}

}  // namespace coppice
