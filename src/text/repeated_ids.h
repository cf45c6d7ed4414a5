// Ids that several documents of a corpus have. Token shards and labels know a document by the hash of its id, so it is
// the hashes that are compared: two ids of one hash (once in 10^4 corpora of 10^8 documents) are the same trouble.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/text/documents.h"

namespace coppice {

class RepeatedIds {
 public:
  void look(const Document& document);       // 16 bytes each, and as much again
  uint64_t count() const { return count_; }  // documents whose id came before
  /// `'7' in a.jsonl:3 and b.jsonl:1`, ten at most.
  const std::vector<std::string>& first() const { return first_; }

 private:
  struct Slot {
    uint64_t hash = 0, place = 0;  // place: number of the file and line; 0 = empty
  };
  Slot& slot_of(std::vector<Slot>& slots, uint64_t hash) const;
  std::string text_of(uint64_t place) const;

  std::vector<Slot> slots_;
  uint64_t used_ = 0, count_ = 0;
  std::vector<std::shared_ptr<const std::string>> files_;
  std::vector<std::string> first_;
};

}  // namespace coppice
