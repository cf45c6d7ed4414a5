// In the step's folder: scores-<file>, a record {u64 hash of the id, f64 score} a document in their order; ranks, a
// record {f64 score, u64 hash} a document of the sample, the best first. Both are written under another name and
// renamed.
#include "src/corpus/classify/kept_share.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/classify/mapped_file.h"

namespace coppice {
namespace {

struct Noted {
  uint64_t hash = 0;
  double score = 0;
};

std::filesystem::path scores_path(const GroupPlace& place, uint32_t file) {
  return place.folder / fmt::format("scores-{:06}", file);
}
std::filesystem::path ranks_path(const GroupPlace& place) { return place.folder / "ranks"; }

/// Where a document stands among the others: the higher score goes before, and of equal scores a hash decides, another
/// one than that by which documents come into the sample.
struct Rank {
  double score = 0;
  uint64_t tie = 0;
  explicit Rank(const Noted& noted) : score(noted.score), tie(XXH3_64bits(&noted.hash, sizeof noted.hash)) {}
  Rank() = default;
  bool operator<(const Rank& other) const { return score != other.score ? score > other.score : tie < other.tie; }
};

template <class Record>
std::string_view bytes_of(const std::vector<Record>& records) {
  return {reinterpret_cast<const char*>(records.data()), records.size() * sizeof(Record)};
}

/// Whole records of a file of them, which may be empty.
template <class Record>
std::vector<Record> read_records(const std::filesystem::path& path) {
  const std::string bytes = read_file(path, uint64_t{1} << 36);
  if (bytes.size() % sizeof(Record) != 0)
    throw UserError::bad_file(path.native(), fmt::format("{} bytes are no whole records of {}; remove the file and run "
                                                         "again",
                                                         bytes.size(), sizeof(Record)));
  std::vector<Record> records(bytes.size() / sizeof(Record));
  std::memcpy(records.data(), bytes.data(), bytes.size());
  return records;
}

class Notes : public GroupNotes {
 public:
  Notes(std::filesystem::path path, std::unique_ptr<TextScorer> scorer, const std::string& name)
      : path_(std::move(path)), scorer_(std::move(scorer)), name_(name) {}
  void add(const Document& document) override {
    noted_.push_back({sample_hash(document.id), scorer_->score(document.text)});
  }
  void tell(Document& document) const override {
    if (!std::isnan(noted_.back().score)) store_score(document, name_, noted_.back().score);
  }
  void commit() override { write_file_atomically(path_, bytes_of(noted_)); }

 private:
  std::filesystem::path path_;
  std::unique_ptr<TextScorer> scorer_;
  const std::string& name_;
  std::vector<Noted> noted_;  // 16 bytes a document of one file
};

class Decisions : public GroupDecisions {
 public:
  Decisions(const GroupPlace& place, uint32_t file, std::string name, double keep_share)
      : path_(scores_path(place, file)),
        noted_(read_records<Noted>(path_)),
        ranks_(read_records<Rank>(ranks_path(place))),
        name_(std::move(name)),
        keep_share_(keep_share) {}

  bool look(Document& document, std::span<double> values, std::string&) override {
    const Noted& noted = next();
    if (std::isnan(noted.score)) return false;
    store_score(document, name_, noted.score);
    values[0] = share_at(noted);
    return true;
  }
  bool goes() override {
    const Noted& noted = next();
    return !std::isnan(noted.score) && share_at(noted) > keep_share_;
  }

 private:
  const Noted& next() {
    if (next_ == noted_.size())
      throw UserError::bad_file(path_.native(), fmt::format("{} scores, and the file has more documents; remove the "
                                                            "folder and run again",
                                                            noted_.size()));
    return noted_[next_++];
  }
  /// Of the sample, that which stands before the document, and itself; 0 for the best, which stays however small the
  /// share is.
  double share_at(const Noted& noted) const {
    const auto up_to = std::upper_bound(ranks_.begin(), ranks_.end(), Rank(noted)) - ranks_.begin();
    return up_to <= 1 ? 0 : static_cast<double>(up_to) / static_cast<double>(ranks_.size());
  }

  std::filesystem::path path_;
  std::vector<Noted> noted_;
  std::vector<Rank> ranks_;
  std::string name_;
  double keep_share_;
  size_t next_ = 0;
};

}  // namespace

KeptShareStep::KeptShareStep(std::shared_ptr<const TextModel> model, std::string name, double keep_share)
    : model_(std::move(model)), name_(std::move(name)), keep_share_(keep_share) {}

std::vector<Rule> KeptShareStep::rules() const { return {{.name = name_ + "_share", .most = keep_share_}}; }

std::unique_ptr<GroupNotes> KeptShareStep::note(const GroupPlace& place, uint32_t file) const {
  return std::make_unique<Notes>(scores_path(place, file), model_->start(), name_);
}

void KeptShareStep::settle(const GroupPlace& place) const {
  using Key = std::pair<uint64_t, double>;
  std::vector<Key> sample;  // a heap, the largest hash in front
  for (uint32_t file = 0; file < place.files.size(); ++file) {
    const std::vector<Noted> all = read_records<Noted>(scores_path(place, file));
    const std::vector<bool> left = place.left ? place.left(file) : std::vector<bool>(all.size(), true);
    if (left.size() != all.size())
      throw UserError::bad_file(
          scores_path(place, file).native(),
          fmt::format("{} scores of {} documents; remove the folder and run again", all.size(), left.size()));
    for (size_t i = 0; i < all.size(); ++i) {
      const Noted& noted = all[i];
      const Key key{noted.hash, noted.score};
      if (!left[i] || std::isnan(noted.score) || (sample.size() == kShareSample && key >= sample.front())) continue;
      sample.push_back(key);
      std::ranges::push_heap(sample);
      if (sample.size() <= kShareSample) continue;
      std::ranges::pop_heap(sample);
      sample.pop_back();
    }
  }
  std::vector<Rank> ranks;
  for (const auto& [hash, score] : sample) ranks.emplace_back(Noted{hash, score});
  std::sort(ranks.begin(), ranks.end());
  write_file_atomically(ranks_path(place), bytes_of(ranks));
}

std::unique_ptr<GroupDecisions> KeptShareStep::decide(const GroupPlace& place, uint32_t file) const {
  return std::make_unique<Decisions>(place, file, name_, keep_share_);
}

}  // namespace coppice
