// One domain of the corpus becomes token shards: read in turn, encoded by several threads, written in the order of
// reading.
#pragma once

#include <cstdint>
#include <filesystem>

#include "src/base/log.h"
#include "src/text/survey_corpus.h"
#include "src/tokens/source_rights.h"
#include "src/tokens/tokenizer.h"

namespace coppice {

/// The progress line of all domains together: bytes of the corpus files.
class TokenizingProgress {
 public:
  explicit TokenizingProgress(uint64_t total_bytes);
  void update(uint64_t bytes, uint64_t tokens);  // of the domain at hand
  void finish_domain(uint64_t bytes) { done_bytes_ += bytes; }

 private:
  Progress line_;
  uint64_t done_bytes_ = 0;
  uint64_t tokens_ = 0;  // encoded by this process
  double begin_s_ = monotonic_s();
};

struct TokenizeOptions {
  CorpusDomain domain;
  std::vector<SourceRights> sources;  // whose documents the domain holds, where a corpus tells
  double heldout_share = 0, tuning_share = 0;
  uint64_t shard_tokens = 0;  // at most, of one file
  int num_threads = 1;
  std::filesystem::path data_folder;
};

/// Into data_folder/tokens/<domain>, data_folder/heldout/<domain> and, with a share for tuning,
/// data_folder/tuning/<domain>, and what is to be said of it into data_folder/corpus/<domain>.json. `survey` has looked
/// at all domains, this one at `place`. The result is a function of the documents alone, whatever the number of
/// threads. Goes on behind the last whole shard of an earlier process; throws Stopped between batches of a few MB.
/// UserError::bad_file when no document is left to train on.
void tokenize_domain(const TokenizeOptions& options, const CorpusSurvey& survey, size_t place,
                     const Tokenizer& tokenizer, TokenizingProgress& progress);

}  // namespace coppice
