#include "src/corpus/dedup/member_rows.h"

#include <algorithm>
#include <utility>

#include "src/base/errors.h"

namespace coppice {

void MemberRows::load(std::vector<uint32_t> documents, bool signatures) {
  loaded_ = std::move(documents);
  keep_values_.resize(loaded_.size());
  signatures_.resize(signatures ? loaded_.size() * documents_.width() : 0);
  const NotedFile* file = nullptr;
  std::optional<RecordReader> keys;
  for (size_t i = 0; i < loaded_.size(); ++i) {
    if (file == nullptr || loaded_[i] >= file->base + file->documents) {
      file = &documents_.file_of(loaded_[i]);
      keys.emplace(documents_.keys(*file));
    }
    KeyRecord key;
    keys->read(loaded_[i] - file->base, 1, &key);
    keep_values_[i] = key[0];
    if (signatures) read_signature(loaded_[i], signatures_.data() + i * documents_.width());
  }
}

size_t MemberRows::place_of(uint32_t document) const {
  const auto found = std::ranges::lower_bound(loaded_, document);
  COPPICE_CHECK(found != loaded_.end() && *found == document, "a document that was not loaded");
  return static_cast<size_t>(found - loaded_.begin());
}

void MemberRows::read_signature(uint32_t document, uint32_t* out) {
  if (open_file_ == nullptr || document < open_file_->base || document >= open_file_->base + open_file_->documents) {
    open_file_ = &documents_.file_of(document);
    values_.reset();
    values_.emplace(documents_.values(*open_file_));
    if (values_->count() != open_file_->documents) values_->damaged("not as many signatures as documents");
  }
  values_->read(document - open_file_->base, 1, out);
}

const uint32_t* MemberRows::signature(uint32_t document, size_t slot) {
  if (!signatures_.empty()) return signatures_.data() + place_of(document) * documents_.width();
  single_[slot].resize(documents_.width());
  read_signature(document, single_[slot].data());
  return single_[slot].data();
}

std::vector<uint64_t> MemberRows::shingles(uint32_t document) {
  const NotedFile& file = documents_.file_of(document);
  RecordReader keys = documents_.keys(file), shingles = documents_.shingles(file);
  std::array<KeyRecord, 2> ends;
  keys.read(document - file.base, 2, ends.data());
  if (ends[0][2] > ends[1][2] || ends[1][2] > shingles.count()) shingles.damaged("shingles that are not there");
  std::vector<uint64_t> hashes(ends[1][2] - ends[0][2]);
  shingles.read(ends[0][2], hashes.size(), hashes.data());
  return hashes;
}

}  // namespace coppice
