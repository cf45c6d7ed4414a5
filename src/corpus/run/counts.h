// What a pass counts of one file, and the sums over files: integers, so that no order matters.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "src/base/json.h"
#include "src/corpus/sources/source.h"
#include "src/corpus/step.h"

namespace coppice {

struct Amount {
  uint64_t documents = 0, text_bytes = 0;
  void add(uint64_t bytes) { ++documents, text_bytes += bytes; }
  Amount& operator+=(const Amount& other);
  bool operator==(const Amount&) const = default;
};

/// Of one rule; text as it was when the rule looked at it. `alone` and `would` count measured documents only.
struct RuleCounts {
  Amount first;  // removed by this rule, the first that did not let them pass
  Amount alone;  // no other rule that looked at them would have removed them
  Amount would;  // removed by it if it were the first
  RuleCounts& operator+=(const RuleCounts& other);
};

/// Rules that every step has besides its own, where they are not of its own: a change that leaves no text, a document
/// that takes too long.
inline constexpr const char* kEmptied = "emptied";
inline constexpr const char* kTimeout = "timeout";

struct StepCounts {
  Amount seen, kept;
  uint64_t changed = 0;   // of those that were kept
  uint64_t measured = 0;  // by every rule, removed before or not
  std::map<std::string, RuleCounts> rules;
  Counts counted;  // by the step itself (DocumentLook::add_counts)
  StepCounts& operator+=(const StepCounts& other);
};

/// Of one file in one pass.
struct FileCounts {
  SourceReport source;    // of the first pass
  Amount before, behind;  // what came, what is left
  std::map<std::string, StepCounts> steps;
};

Json to_json(const Amount& amount);
Json to_json(const SourceReport& report);
Json to_json(const StepCounts& counts);
Json to_json(const FileCounts& counts);
/// `where` is the path of the file that it was read from, for messages.
FileCounts file_counts_from(const Json& json, const std::string& where);

}  // namespace coppice
