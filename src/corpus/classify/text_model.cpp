#include "src/corpus/classify/text_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <span>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/corpus/classify/classifier_file.h"
#include "src/corpus/classify/fasttext_model.h"

namespace coppice {
namespace {

class OwnModel : public TextModel {
 public:
  explicit OwnModel(const std::filesystem::path& path)
      : sha256_(sha256_file(path)), classifier_(read_classifier(path)) {}
  std::unique_ptr<TextScorer> start() const override { return std::make_unique<Scorer>(classifier_); }
  std::string identity() const override { return sha256_; }

 private:
  class Scorer : public TextScorer {
   public:
    explicit Scorer(const Classifier& classifier) : classifier_(classifier), counter_(classifier.weights.size()) {}
    double score(std::string_view text) override { return classifier_.probability(counter_.count(text)); }

   private:
    const Classifier& classifier_;
    FeatureCounter counter_;
  };
  std::string sha256_;
  Classifier classifier_;
};

class LabelModel : public TextModel {
 public:
  LabelModel(const std::filesystem::path& path, const std::string& label, const std::string& where)
      : sha256_(sha256_file(path)), model_(path) {
    std::vector<std::string> names;
    for (const std::string_view name : model_.labels()) {
      if (label == name || label == bare_label(name)) return;
      names.push_back(printable(bare_label(name)));
      ++label_;
    }
    constexpr size_t kNames = 20;
    const bool more = names.size() > kNames;
    names.resize(std::min(names.size(), kNames));
    throw UserError::recipe(where, fmt::format("label: got '{}', and {} has {}{}", printable(label), path.string(),
                                               fmt::join(names, ", "), more ? ", ..." : ""));
  }
  std::unique_ptr<TextScorer> start() const override { return std::make_unique<Scorer>(model_, label_); }
  std::string identity() const override { return sha256_; }

 private:
  class Scorer : public TextScorer {
   public:
    Scorer(const FastTextModel& model, size_t label) : model_(model), label_(label) {}
    double score(std::string_view text) override {
      const std::span<const float> probabilities = model_.predict(text, room_);
      return probabilities.empty() ? std::numeric_limits<double>::quiet_NaN() : double{probabilities[label_]};
    }

   private:
    const FastTextModel& model_;
    size_t label_;
    FastTextModel::Room room_;
  };
  std::string sha256_;
  FastTextModel model_;
  size_t label_ = 0;
};

}  // namespace

std::shared_ptr<const TextModel> open_text_model(const std::filesystem::path& path, const std::string& label,
                                                 const std::string& where) {
  const MappedFile file(path);
  if (is_fasttext_file(file.bytes())) return std::make_shared<LabelModel>(path, label, where);
  if (!is_hdf5_file(file.bytes()))
    throw UserError::bad_file(path.native(),
                              "is neither a fastText model (.bin) nor a classifier of coppice data train-classifier");
  if (!label.empty())
    throw UserError::recipe(
        where, fmt::format("label: got '{}', and {} has no labels; leave it out", printable(label), path.string()));
  return std::make_shared<OwnModel>(path);
}

void store_score(Document& document, const std::string& name, double score) {
  const auto found = std::ranges::find(document.scores, name, &Score::name);
  if (found == document.scores.end()) {
    document.scores.push_back({name, score});
  } else {
    found->value = score;
  }
}

}  // namespace coppice
