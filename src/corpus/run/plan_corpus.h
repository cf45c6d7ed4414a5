// `coppice data plan`: what a corpus will cost, from the first documents of each source.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "src/corpus/run/run_corpus.h"

namespace coppice {

struct SourcePlan {
  std::string name;
  uint64_t files = 0, bytes = 0;
  uint64_t sampled = 0;     // documents that were read
  double documents = 0;     // estimated
  double text_bytes = 0;    // of them
  double read_seconds = 0;  // CPU time of reading them all
};

struct StepPlan {
  std::string name;
  double documents = 0;  // that come to it
  double seconds = 0;    // CPU time; of a group step: of its notes alone
  double dropped = 0;    // share; nothing is known of group steps
  bool groups = false;
  double least_memory = 0;  // bytes, without which a group step refuses these documents
};

struct CorpusPlan {
  std::vector<SourcePlan> sources;
  std::vector<StepPlan> steps;
  double documents_left = 0;
  double final_bytes = 0;    // documents/ and values/
  double work_bytes = 0;     // work/, removed at the end
  double write_seconds = 0;  // CPU time of writing documents, pass by pass
  uint64_t passes = 1, memory_bytes = 0, free_bytes = 0;
  int threads = 1;
  std::vector<std::string> forecasts;  // StepForecast::lines of every step
  std::vector<std::string> warnings;
  double seconds() const;  // of one task, without the grouping itself
};

/// Reads up to 1,000 documents of each source and sends them through the steps; writes beside the system's temporary
/// files alone. UserError and IoError as run_corpus; IoError for a disk that cannot hold the corpus, UserError::recipe
/// for more memory than there is.
CorpusPlan plan_corpus(const CorpusSettings& settings, const CorpusRequest& request);
std::string plan_text(const CorpusPlan& plan);
void check_fits(const CorpusPlan& plan, const CorpusRequest& request);

}  // namespace coppice
