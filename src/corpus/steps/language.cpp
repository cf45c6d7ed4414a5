// The step `language`: which one a document is in, and how much of it. Without `keep` it only says so.
#include <fmt/format.h>

#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/cli/options.h"
#include "src/corpus/classify/fasttext_model.h"
#include "src/corpus/language/language.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

constexpr const char* kModelHelp =
    "a fastText model of languages (lid.176.bin), whose probability is the score; empty = CLD2, the share of the text";

struct LanguageOptions {
  std::vector<std::string> keep;
  std::string model;

  template <class Field>
  void visit_fields(Field& field) {
    field(
        "keep", keep, Mark::decides,
        "languages that stay, each with the least share or score: { en = 0.65, de = 0.8 } or \"en=0.65\"; empty = all");
    field("model", model, Mark::place, kModelHelp);
  }
};

/// The least score of each language that stays.
using KeptLanguages = std::map<std::string, double>;

void keep_language(KeptLanguages& kept, const std::string& code, std::string_view text, const std::string& where) {
  double least = 0;
  const char* const end = text.data() + text.size();
  const auto [read, error] = std::from_chars(text.data(), end, least);
  if (code.empty() || error != std::errc() || read != end || !(least >= 0 && least <= 1))
    throw UserError::recipe(where,
                            fmt::format("keep: got {} = {}, expected a language and a number from 0 to 1, such as "
                                        "en = 0.65",
                                        printable(code), printable(text)));
  if (!kept.emplace(code, least).second)
    throw UserError::recipe(where, fmt::format("keep: {} stands twice", printable(code)));
}

/// A table, or a list of texts such as en=0.65.
KeptLanguages read_keep(OptionTable& table, LanguageOptions& options) {
  KeptLanguages kept;
  const std::vector<std::string> tables = table.table_names();
  if (std::ranges::find(tables, "keep") != tables.end()) {
    for (const Override& entry : table.overrides("keep")) keep_language(kept, entry.path, entry.value, entry.where);
    table.take("model", options.model, kModelHelp);
    return kept;
  }
  table.read(options);
  for (const std::string& text : options.keep) {
    const size_t equals = text.find('=');
    const bool has_score = equals != std::string::npos;
    keep_language(kept, text.substr(0, equals), has_score ? std::string_view(text).substr(equals + 1) : "",
                  table.where("keep"));
  }
  return kept;
}

class LanguageLook : public DocumentLook {
 public:
  LanguageLook(const FastTextModel* model, const KeptLanguages& kept) : model_(model), kept_(kept) {}

  bool look(Document& document, std::span<double> values, bool) override {
    language_ = model_ == nullptr ? detect_language(document.text) : by_model(document.text);
    set_metadata(document, "language", language_.code);
    set_metadata(document, "language_score", language_.share);
    if (kept_.empty()) return true;
    const auto found = kept_.find(language_.code);
    values[0] = found == kept_.end() ? 1 : 0;
    if (found != kept_.end()) values[1 + static_cast<size_t>(std::distance(kept_.begin(), found))] = language_.share;
    return true;
  }
  std::string details() const override {
    return details_of({{"language", language_.code}, {"language_score", language_.share}});
  }

 private:
  Language by_model(std::string_view text) {
    const std::span<const float> probabilities = model_->predict(text, room_);
    if (probabilities.empty()) return {"un", 0};
    const auto best = std::ranges::max_element(probabilities);
    const std::string_view label = model_->labels()[static_cast<size_t>(best - probabilities.begin())];
    return {std::string(bare_label(label)), *best};
  }

  const FastTextModel* model_;
  const KeptLanguages& kept_;
  FastTextModel::Room room_;
  Language language_;  // of the document that was seen last
};

class LanguageStep : public DocumentStep {
 public:
  LanguageStep(KeptLanguages kept, std::unique_ptr<const FastTextModel> model, std::vector<std::string> inputs)
      : kept_(std::move(kept)), model_(std::move(model)), inputs_(std::move(inputs)) {}
  /// Another language than those that stay; too small a share of each that does.
  std::vector<Rule> rules() const override {
    if (kept_.empty()) return {};
    std::vector<Rule> rules = {{.name = "other_language", .most = 0}};
    for (const auto& [code, least] : kept_) rules.push_back({.name = code + "_score", .least = least});
    return rules;
  }
  std::vector<std::string> inputs() const override { return inputs_; }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<LanguageLook>(model_.get(), kept_); }

 private:
  KeptLanguages kept_;
  std::unique_ptr<const FastTextModel> model_;
  std::vector<std::string> inputs_;
};

/// Otherwise a misspelt language would take every document.
void check_languages(const KeptLanguages& kept, const FastTextModel* model, const std::string& where) {
  for (const auto& [code, least] : kept) {
    const auto has_code = [&code](std::string_view label) { return bare_label(label) == code; };
    if (model == nullptr ? !is_language_code(code) : std::ranges::none_of(model->labels(), has_code))
      throw UserError::recipe(where,
                              fmt::format("keep: no language is called '{}' by {}, expected a code such as en, de "
                                          "or zh-Hant",
                                          printable(code), model == nullptr ? "CLD2" : "the model"));
  }
}

std::shared_ptr<const Step> read_language_step(OptionTable& table) {
  LanguageOptions options;
  KeptLanguages kept = read_keep(table, options);
  std::unique_ptr<const FastTextModel> model;
  std::vector<std::string> inputs;
  if (!options.model.empty()) {
    model = std::make_unique<FastTextModel>(std::filesystem::path(options.model));
    inputs.push_back(sha256_file(options.model));
  }
  check_languages(kept, model.get(), table.where("keep"));
  return std::make_shared<LanguageStep>(std::move(kept), std::move(model), std::move(inputs));
}

}  // namespace

extern const StepKind kLanguageStep;
const StepKind kLanguageStep = {
    .kind = "language",
    .about = "the language of every document; others than those that are kept go",
    .example = "coppice data language crawl -o english --keep en=0.65",
    .options = step_options<LanguageOptions>,
    .read = read_language_step,
};

}  // namespace coppice
