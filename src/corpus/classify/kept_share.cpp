// In the step's folder: scores-<file>, a record {u64 hash of the id, f64 score} a document in their order; sample, the
// f64 scores of the sample in ascending order. Both are written under another name and renamed.
#include "src/corpus/classify/kept_share.h"

#include <fmt/format.h>

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
std::filesystem::path sample_path(const GroupPlace& place) { return place.folder / "sample"; }

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
  Notes(std::filesystem::path path, std::unique_ptr<TextScorer> scorer)
      : path_(std::move(path)), scorer_(std::move(scorer)) {}
  void add(const Document& document) override {
    noted_.push_back({sample_hash(document.id), scorer_->score(document.text)});
  }
  void commit() override { write_file_atomically(path_, bytes_of(noted_)); }

 private:
  std::filesystem::path path_;
  std::unique_ptr<TextScorer> scorer_;
  std::vector<Noted> noted_;  // 16 bytes a document of one file
};

class Decisions : public GroupDecisions {
 public:
  Decisions(const GroupPlace& place, uint32_t file, std::string name, double keep_share)
      : path_(scores_path(place, file)),
        noted_(read_records<Noted>(path_)),
        sample_(read_records<double>(sample_path(place))),
        name_(std::move(name)),
        keep_share_(keep_share) {}

  bool look(Document& document, std::span<double> values, std::string&) override {
    const double score = next_score();
    if (std::isnan(score)) return false;
    store_score(document, name_, score);
    values[0] = share_of(score);
    return true;
  }
  bool goes() override {
    const double score = next_score();
    return !std::isnan(score) && share_of(score) > keep_share_;
  }

 private:
  double next_score() {
    if (next_ == noted_.size())
      throw UserError::bad_file(path_.native(), fmt::format("{} scores, and the file has more documents; remove the "
                                                            "folder and run again",
                                                            noted_.size()));
    return noted_[next_++].score;
  }
  /// Of the sample, that which is as good or better.
  double share_of(double score) const {
    const auto higher = sample_.end() - std::ranges::lower_bound(sample_, score);
    return sample_.empty() ? 0 : static_cast<double>(higher) / static_cast<double>(sample_.size());
  }

  std::filesystem::path path_;
  std::vector<Noted> noted_;
  std::vector<double> sample_;
  std::string name_;
  double keep_share_;
  size_t next_ = 0;
};

}  // namespace

KeptShareStep::KeptShareStep(std::shared_ptr<const TextModel> model, std::string name, double keep_share)
    : model_(std::move(model)), name_(std::move(name)), keep_share_(keep_share) {}

std::vector<Rule> KeptShareStep::rules() const { return {{.name = name_ + "_share", .most = keep_share_}}; }

std::unique_ptr<GroupNotes> KeptShareStep::note(const GroupPlace& place, uint32_t file) const {
  return std::make_unique<Notes>(scores_path(place, file), model_->start());
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
  std::vector<double> scores;
  for (const Key& key : sample) scores.push_back(key.second);
  std::ranges::sort(scores);
  write_file_atomically(sample_path(place), bytes_of(scores));
}

std::unique_ptr<GroupDecisions> KeptShareStep::decide(const GroupPlace& place, uint32_t file) const {
  return std::make_unique<Decisions>(place, file, name_, keep_share_);
}

}  // namespace coppice
