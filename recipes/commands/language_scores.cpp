#include "recipes/commands/language_scores.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <numbers>
#include <optional>
#include <vector>

#include "recipes/commands/open_model.h"
#include "src/base/utf8_byte.h"
#include "src/model/continuations.h"
#include "src/tensors/shape.h"

namespace coppice {
namespace {

constexpr size_t kScoredBytes = 16 * kScoredTokens;  // of a text, at most: more than so many tokens have

class LanguageModel : public TextModel {
 public:
  explicit LanguageModel(const std::filesystem::path& path)
      : path_(path),
        tokenizer_(open_tokenizer(path)),
        identity_(fmt::format("language model {}, tokenizer {}", model_sha256(path), tokenizer_.fingerprint())) {}

  double score(std::string_view text) const {
    std::call_once(read_, [this] {
      start_torch(1);
      model_ = open_weights(path_, tokenizer_).model;
    });
    const std::string_view beginning = first_bytes(text, kScoredBytes);
    std::vector<int32_t> ids = tokenizer_.encode(beginning);
    size_t bytes = beginning.size();
    const auto most = static_cast<size_t>(std::min(kScoredTokens, model_->config.max_position_embeddings));
    if (ids.size() > most) {
      ids.resize(most);
      bytes = tokenizer_.decode(ids).size();
    }
    if (ids.empty() || bytes == 0) return std::numeric_limits<double>::quiet_NaN();
    at::set_num_threads(1);  // of this thread: documents are what runs side by side
    const std::vector<int32_t> begin = prompt_ids(path_, tokenizer_, {});
    const std::vector<int64_t> context(begin.begin(), begin.end()), tokens(ids.begin(), ids.end());
    const Continuation whole{context, tokens};
    const ContinuationScore scored = score_continuations(*model_, {&whole, 1}, kScoredTokens).front();
    return scored.log_likelihood / std::numbers::ln2 / static_cast<double>(bytes);
  }

  std::unique_ptr<TextScorer> start() const override;
  std::string identity() const override { return identity_; }

 private:
  std::filesystem::path path_;
  Tokenizer tokenizer_;
  std::string identity_;
  mutable std::once_flag read_;
  mutable std::optional<Model> model_;
};

class LanguageScorer : public TextScorer {
 public:
  explicit LanguageScorer(const LanguageModel& model) : model_(model) {}
  double score(std::string_view text) override { return model_.score(text); }

 private:
  const LanguageModel& model_;
};

std::unique_ptr<TextScorer> LanguageModel::start() const { return std::make_unique<LanguageScorer>(*this); }

}  // namespace

std::shared_ptr<const TextModel> open_language_model(const std::filesystem::path& path) {
  return std::make_shared<LanguageModel>(path);
}

}  // namespace coppice
