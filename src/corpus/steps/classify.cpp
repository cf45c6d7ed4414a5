#include "src/corpus/steps/classify.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/classify/kept_share.h"

namespace coppice {
namespace {

struct ClassifyOptions {
  std::string model, label, score;
  double min_score = -std::numeric_limits<double>::infinity(), keep_share = 1;

  template <class Field>
  void visit_fields(Field& field) {
    field("model", model, Mark::place,
          "a classifier of coppice data train-classifier, a supervised fastText model (.bin), or a language model: a "
          "stage's folder, a Hugging Face folder or a .gguf, whose score is minus the bits a byte of the first 1,024 "
          "tokens");
    field("label", label, Mark::decides, "of a fastText model: the label whose probability is the score");
    field("score", score, Mark::decides, "name of the score in metadata.scores; empty = the model's file name");
    field("min_score", min_score, Mark::decides, "documents of a lower score go; -inf = none");
    field("keep_share", keep_share, Mark::decides,
          "instead: the share of the documents that stays, those of the highest scores; 1 = all");
  }
};

class ClassifyLook : public DocumentLook {
 public:
  ClassifyLook(std::unique_ptr<TextScorer> scorer, const std::string& name) : scorer_(std::move(scorer)), name_(name) {}

  bool look(Document& document, std::span<double> values, bool) override {
    const double score = scorer_->score(document.text);
    if (std::isnan(score)) return false;
    store_score(document, name_, score);
    values[0] = score;
    return true;
  }

 private:
  std::unique_ptr<TextScorer> scorer_;
  const std::string& name_;
};

class ClassifyStep : public DocumentStep {
 public:
  ClassifyStep(std::shared_ptr<const TextModel> model, std::string name, double min_score)
      : model_(std::move(model)), name_(std::move(name)), min_score_(min_score) {}
  std::vector<Rule> rules() const override { return {{.name = name_, .least = min_score_}}; }
  std::vector<std::string> inputs() const override { return {model_->identity()}; }
  std::unique_ptr<DocumentLook> start() const override {
    return std::make_unique<ClassifyLook>(model_->start(), name_);
  }

 private:
  std::shared_ptr<const TextModel> model_;
  std::string name_;
  double min_score_;
};

LanguageModelOpener& language_model_opener() {
  static LanguageModelOpener open;
  return open;
}

bool is_language_model(const std::filesystem::path& model) {
  return std::filesystem::is_directory(model) || model.extension() == ".gguf";
}

std::shared_ptr<const TextModel> open_classifier(const OptionTable& table, const ClassifyOptions& options) {
  if (options.model.empty())
    throw UserError::recipe(
        table.where(),
        "model: none is given; expected a classifier of coppice data train-classifier, a fastText model (.bin) or a "
        "language model");
  if (!is_language_model(options.model)) return open_text_model(options.model, options.label, table.where("label"));
  if (!options.label.empty())
    throw UserError::recipe(table.where("label"),
                            fmt::format("label: got '{}', but {} is a language model, which has none",
                                        printable(options.label), printable(options.model)));
  if (const LanguageModelOpener& open = language_model_opener()) return open(options.model);
  throw UserError::recipe(table.where("model"),
                          fmt::format("model: {} is no file of a classifier or of a fastText model "
                                      "(.bin), and language models are not read here",
                                      printable(options.model)));
}

std::shared_ptr<const Step> read_classify_step(OptionTable& table) {
  ClassifyOptions options;
  table.read(options);
  const bool has_share = options.keep_share != 1;
  if (has_share && std::isfinite(options.min_score))
    throw UserError::recipe(table.where("keep_share"), "min_score and keep_share: got both, expected one of them");
  if (!(options.keep_share > 0 && options.keep_share <= 1))
    throw UserError::recipe(table.where("keep_share"),
                            fmt::format("keep_share: got {}, expected above 0 and up to 1", options.keep_share));
  std::shared_ptr<const TextModel> model = open_classifier(table, options);
  if (options.score.empty()) options.score = std::filesystem::path(options.model).stem().string();
  if (has_share) return std::make_shared<KeptShareStep>(std::move(model), options.score, options.keep_share);
  return std::make_shared<ClassifyStep>(std::move(model), options.score, options.min_score);
}

}  // namespace

void set_language_model_opener(LanguageModelOpener open) { language_model_opener() = std::move(open); }

extern const StepKind kClassifyStep;
const StepKind kClassifyStep = {
    .kind = "classify",
    .about = "scores documents by a classifier, a fastText or a language model; those of low scores go",
    .example = "coppice data classify crawl -o scored --model quality.h5 --min-score 0.5",
    .options = step_options<ClassifyOptions>,
    .read = read_classify_step,
};

}  // namespace coppice
