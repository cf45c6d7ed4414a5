// values/<file>.h5 of a complete corpus, column by column.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/base/hdf5.h"
#include "src/corpus/report/complete_corpus.h"

namespace coppice {

class ValueFile {
 public:
  /// Of one of its input files. UserError::bad_file for another file, and for the values of another corpus or input.
  ValueFile(const CompleteCorpus& corpus, const SourceFile& file);
  uint64_t documents() const { return documents_; }
  /// Of each document; NaN where the rule has not measured it, or is one that has no column.
  std::vector<float> column(const std::string& step, const std::string& rule) const;
  std::vector<uint64_t> ids() const;  // document_hash() of their ids

 private:
  Hdf5Reader reader_;
  uint64_t documents_;
};

/// UserError::recipe for a corpus that was made with values = "none".
void check_has_values(const CompleteCorpus& corpus);

/// Rule::drops() of a stored value. What was equal to a limit in 64 bits is equal to it in 32, and stays.
bool drops_stored(const Rule& rule, float value);

}  // namespace coppice
