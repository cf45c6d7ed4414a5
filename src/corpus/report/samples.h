// Documents of a complete corpus to be looked at: with the value that decided, and how their texts begin.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/report/complete_corpus.h"

namespace coppice {

struct SampleText {
  size_t characters = 300;
  bool raw = false;  // personal data as it stands, not masked
};

/// How a text begins, on one line.
std::string beginning_of(std::string_view text, const SampleText& shape);

struct Sample {
  std::string id, source;
  std::optional<double> value;
  std::optional<std::string> text;  // its beginning, where the text is at hand
};

/// Documents of a file by document_hash() of their ids: what the corpus has kept; what went, with its text from
/// removed/ where that was kept, else as the source file holds it (a page: as text), if it still lies where
/// inputs.json says. Who is nowhere is left out.
std::map<uint64_t, Sample> find_documents(const CompleteCorpus& corpus, const SourceFile& file,
                                          const std::set<uint64_t>& ids, const SampleText& shape);

/// `count` documents by the lowest hashes of their ids, in the order of their values: those that the rule removed, or
/// with `kept` those that the corpus has kept and the rule has measured, out of 64 files at most. UserError::recipe for
/// `kept` in a corpus without values.
std::vector<Sample> sample_documents(const CompleteCorpus& corpus, const ToldStep& step, const ToldRule& rule,
                                     size_t count, bool kept, const SampleText& shape);
std::string samples_text(const std::vector<Sample>& samples, const ToldStep& step, const ToldRule& rule);

}  // namespace coppice
