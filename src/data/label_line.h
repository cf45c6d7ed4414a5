// One line of a label file, read: which document, its tokens, and what the teacher says at each of them, whoever wrote
// it. Private to src/data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/data/label_cache.h"

namespace coppice {

/// Where a line stands: every complaint names it.
struct LinePlace {
  std::string path;
  uint64_t number = 0;
  [[noreturn]] void refuse(const std::string& message) const;
};

struct LabelChoice {
  int64_t id = 0;
  double logp = 0;  // as given; of draws from a proposal the log of their weight
};

/// What stands at one token; no choices = no label.
struct TokenLabels {
  std::vector<LabelChoice> choices;  // most probable first, draws in any order; of format vllm any number of them
  bool has_tail = false;             // it was given
  double tail = 0;                   // log of what the choices leave over, -infinity = nothing
  std::vector<int64_t> drawn;        // of that, in any order; in tier hybrid
};

struct LabelLine {
  std::vector<int64_t> tokens;      // below 0 = no id that there could be
  std::vector<TokenLabels> labels;  // one a token
  bool has_logp = false;
};

/// The hash of the document's id: "id", a string or a number as the corpus has it, or "doc".
uint64_t document_of(const LinePlace& place, const Json& object);
/// Our own lists, to the letter: lists of one length, at most k ids a token, log-probabilities in descending order when
/// the tier has them; of draws as many as it has, or none, each with its weight where they have weights.
LabelLine read_label_lists(const LinePlace& place, const Json& object, const LabelFingerprint& fingerprint);
/// What vLLM gives: prompt_token_ids and prompt_logprobs, or our lists with any number of ids in any order, null for no
/// label.
LabelLine read_vllm_line(const LinePlace& place, const Json& object, const LabelFingerprint& fingerprint);

}  // namespace coppice
