#include "src/data/tokenize_domain.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
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

/// The folders of a domain, one a split, fed batch by batch.
class DomainTokens {
 public:
  DomainTokens(const TokenizeOptions& options, const Tokenizer& tokenizer, TokenizingProgress& progress)
      : tokenizer_(tokenizer),
        num_threads_(options.num_threads),
        progress_(progress),
        train_(writer_in("tokens", options)),
        heldout_(writer_in("heldout", options)) {
    if (options.tuning_share > 0) tuning_.reset(new TokenShardWriter(writer_in("tuning", options)));
  }

  /// `writer`: of this domain; `bytes_read`: of the corpus, with this document.
  void add(Document&& document, TokenShardWriter& writer, uint64_t bytes_read) {
    ++documents_;
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
  TokenShardWriter* tuning() { return tuning_.get(); }  // nullptr without a share for it
  uint64_t documents() const { return documents_; }

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
  std::unique_ptr<TokenShardWriter> tuning_;
  uint64_t documents_ = 0, batch_bytes_ = 0;
  std::vector<Pending> batch_;
};

/// Commits what was set aside of a domain; nothing of it is no refusal.
void finish_split(TokenShardWriter& split, const TokenizeOptions& options, uint64_t documents, const char* key,
                  double share, const char* use) {
  if (split.num_tokens() > 0) return split.finish(options.sources);
  log_warning(fmt::format("domain '{}': none of its {} documents falls into {} = {}; it is trained on but not {}",
                          options.domain.name, documents, key, share, use));
}

}  // namespace

void tokenize_domain(const TokenizeOptions& options, const CorpusSurvey& survey, size_t place,
                     const Tokenizer& tokenizer, TokenizingProgress& progress) {
  const CorpusDomain& domain = options.domain;
  DomainTokens tokens(options, tokenizer, progress);
  RepeatedTexts held_again(survey.held_texts), tuning_again(survey.tuning_texts);
  uint64_t bytes_read = 0;
  const auto visit = [&](Document&& document) {
    TokenShardWriter* writer = &tokens.train();
    if (is_heldout(document.id, options.heldout_share)) {
      writer = &tokens.heldout();
    } else if (is_tuning(document.id, options.tuning_share)) {
      writer = tokens.tuning();
    } else {
      held_again.look(document.text);
      tuning_again.look(document.text);
    }
    tokens.add(std::move(document), *writer, bytes_read);
  };
  for_each_document(domain.path, visit, domain.reading, &bytes_read);
  tokens.encode_batch(bytes_read);
  progress.finish_domain(bytes_read);
  if (tokens.train().num_tokens() == 0)
    throw UserError::bad_file(domain.path.string(), "no document is left to train on");
  finish_split(tokens.heldout(), options, tokens.documents(), "data.heldout_share", options.heldout_share, "evaluated");
  if (tokens.tuning() != nullptr)
    finish_split(*tokens.tuning(), options, tokens.documents(), "data.tuning_share", options.tuning_share, "tuned on");
  make_folder(options.data_folder / "corpus");
  write_file_atomically(options.data_folder / "corpus" / (domain.name + ".json"),
                        seal(corpus_record(survey, place, held_again, tuning_again)));
  tokens.train().finish(options.sources);  // last: its manifest marks the domain as whole
  const auto count = [](const TokenShardWriter& writer) {
    return format_count(static_cast<double>(writer.num_tokens()));
  };
  log_info(fmt::format("domain '{}': {} documents, {} tokens ({} held out{})", domain.name, tokens.documents(),
                       count(tokens.train()), count(tokens.heldout()),
                       tokens.tuning() == nullptr ? "" : fmt::format(", {} for tuning", count(*tokens.tuning()))));
}

}  // namespace coppice
