// What gives texts a score: coppice's own classifier, a fastText model, or a language model that others provide.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "src/text/documents.h"

namespace coppice {

/// One thread's.
class TextScorer {
 public:
  virtual ~TextScorer() = default;
  /// NaN for a text of which the model cannot say anything: one without words.
  virtual double score(std::string_view text) = 0;
};

/// Threads share it.
class TextModel {
 public:
  virtual ~TextModel() = default;
  virtual std::unique_ptr<TextScorer> start() const = 0;
  /// A hash of what decides its scores: part of a step's fingerprint.
  virtual std::string identity() const = 0;
};

/// Opens a checkpoint's folder as a model whose score is minus the bits per byte of a text, so that the higher is the
/// better. Whoever knows checkpoints has one.
using LanguageModelOpener = std::function<std::shared_ptr<const TextModel>(const std::filesystem::path& folder)>;

/// The model in a file, told by its first bytes: a classifier of `coppice data train-classifier`, or a fastText .bin,
/// whose probability of `label` is the score (with or without `__label__`). UserError::bad_file for another file or a
/// damaged one; UserError::recipe at `where` for a label that the model does not have, or one of a model without
/// labels.
std::shared_ptr<const TextModel> open_text_model(const std::filesystem::path& path, const std::string& label,
                                                 const std::string& where);

/// Replaces or appends one of document.scores.
void store_score(Document& document, const std::string& name, double score);

}  // namespace coppice
