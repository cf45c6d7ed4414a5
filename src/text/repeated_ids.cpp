#include "src/text/repeated_ids.h"

#include <fmt/format.h>

#include <algorithm>

namespace coppice {
namespace {

constexpr int kLineBits = 40;
constexpr size_t kExamples = 10;

}  // namespace

RepeatedIds::Slot& RepeatedIds::slot_of(std::vector<Slot>& slots, uint64_t hash) const {
  size_t at = hash & (slots.size() - 1);
  while (slots[at].place != 0 && slots[at].hash != hash) at = (at + 1) & (slots.size() - 1);
  return slots[at];
}

std::string RepeatedIds::text_of(uint64_t place) const {
  const std::string& file = *files_[(place >> kLineBits) - 1];
  const uint64_t line = place & ((uint64_t{1} << kLineBits) - 1);
  return line == 0 ? file : fmt::format("{}:{}", file, line);
}

void RepeatedIds::look(const Document& document) {
  if (files_.empty() || files_.back() != document.file) files_.push_back(document.file);
  const uint64_t place = static_cast<uint64_t>(files_.size()) << kLineBits | document.line;
  if (2 * used_ >= slots_.size()) {
    std::vector<Slot> larger(std::max<size_t>(1024, 2 * slots_.size()));
    for (const Slot& slot : slots_)
      if (slot.place != 0) slot_of(larger, slot.hash) = slot;
    slots_ = std::move(larger);
  }
  const uint64_t hash = document_hash(document.id);
  Slot& slot = slot_of(slots_, hash);
  if (slot.place == 0) {
    slot = {.hash = hash, .place = place};
    ++used_;
    return;
  }
  ++count_;
  if (first_.size() < kExamples)
    first_.push_back(fmt::format("'{}' in {} and {}", document.id, text_of(slot.place), text_of(place)));
}

}  // namespace coppice
