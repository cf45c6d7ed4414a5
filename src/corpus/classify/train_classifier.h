// Trains coppice's own classifier: good documents from others, logistic regression over words and pairs of words
// (document_features.h) by FTRL-proximal (ftrl.h), on blocks of documents in an order keyed by the seed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "src/corpus/classify/classifier_file.h"
#include "src/text/documents.h"

namespace coppice {

struct ClassifierTraining {
  std::vector<std::filesystem::path> positive, negative;  // files and folders that for_each_document() reads
  CorpusOptions reading;
  uint64_t seed = 1;
  int64_t passes = 5;
  int64_t max_documents =
      100000;                  // of each kind: those of the smallest hashes of their ids; 12 kB of memory each at most
  double heldout_share = 0.1;  // by id hash; what says how good it is, and fits the probabilities
  uint64_t buckets = kMaxBuckets;
  int threads = 1;
};

/// The same bytes for every number of threads and order of files and documents (of different ids). UserError::bad_file
/// for files without documents; UserError::recipe when one of the kinds has none to train on, or none held out. Stopped
/// on a signal.
Classifier train_classifier(const ClassifierTraining& training);

}  // namespace coppice
