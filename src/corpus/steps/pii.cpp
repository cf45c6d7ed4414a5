// The step `pii`: personal data and secrets leave a document, which goes where it holds too many of them.
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/personal/kinds.h"
#include "src/corpus/personal/personal.h"
#include "src/corpus/personal/personal_counts.h"
#include "src/corpus/sources/source.h"
#include "src/corpus/step.h"
#include "src/text/ascii_case.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

struct PiiOptions {
  std::string replace = "placeholder";
  int64_t max_spans = 5, max_licensed_spans = 0;
  std::vector<std::string> kinds = {"EMAIL", "IP", "PHONE", "CARD", "IBAN", "SSN", "SECRET"};
  bool code = false;
  int64_t seed = 0;

  template <class Field>
  void visit_fields(Field& field) {
    field("replace", replace, Mark::decides, "placeholder (<EMAIL>), fake (an example of the same form) or remove");
    field("max_spans", max_spans, Mark::decides, "a document with more of them goes; 0 = none does");
    field("max_licensed_spans", max_licensed_spans, Mark::decides,
          "the same for documents of sources that are public or have a licence");
    field("kinds", kinds, Mark::decides, "of EMAIL, IP, PHONE, CARD, IBAN, SSN, SECRET");
    field("code", code, Mark::decides,
          "source code: SECRET takes values of keys and passwords as well, by their entropy");
    field("seed", seed, Mark::decides, "of the examples that replace = \"fake\" chooses");
  }
};

constexpr std::array<std::pair<const char*, Replacement>, 3> kReplacements = {{
    {"placeholder", Replacement::placeholder},
    {"fake", Replacement::fake},
    {"remove", Replacement::remove},
}};

/// By ASCII white space, for rates: a few instructions for many bytes.
uint64_t count_words(std::string_view text) {
  uint64_t words = 0;
  unsigned char before = ' ';
  for (const char byte : text) {
    const auto now = static_cast<unsigned char>(byte);
    words += static_cast<uint64_t>(before <= ' ') & static_cast<uint64_t>(now > ' ');
    before = now;
  }
  return words;
}

enum RuleNumber { kSpans, kLicensedSpans, kPatternLimit };

class PiiLook : public DocumentLook {
 public:
  PiiLook(const PersonalFinder& finder, const PiiOptions& options, Replacement by)
      : finder_(finder),
        options_(options),
        by_(by),
        counts_(finder.kind_names().size()),
        all_spans_(counts_.size()),
        documents_(counts_.size()) {}

  /// What is published under a licence was chosen by people: many addresses there are no sign of a list that leaked.
  void begin(const SourceOptions& source) override {
    const bool is_licensed = !source.license.empty() && !equals_ignoring_case(source.license, "unknown");
    spans_rule_ = source.is_public || is_licensed ? kLicensedSpans : kSpans;
  }

  bool look(Document& document, std::span<double> values, bool) override {
    // By document: one person stays one within it, and is nobody elsewhere.
    const uint64_t key =
        XXH3_64bits_withSeed(document.id.data(), document.id.size(), static_cast<uint64_t>(options_.seed));
    bool complete = true;
    const bool is_title_masked = mask_title(document, key, complete);
    complete &= finder_.find(document.text, spans_);
    words_ += count_words(document.text);
    values[spans_rule_] = static_cast<double>(spans_.size());
    values[kPatternLimit] = complete ? 0 : 1;
    if (spans_.empty()) return is_title_masked;
    document.text = replaced(document.text, spans_, finder_, by_, key);
    std::ranges::fill(counts_, 0);
    for (const PersonalSpan& span : spans_) ++counts_[span.kind];
    Json counts = Json::object();
    for (size_t kind = 0; kind < counts_.size(); ++kind) {
      if (counts_[kind] == 0) continue;
      counts[finder_.kind_names()[kind]] = counts_[kind];
      all_spans_[kind] += counts_[kind];
      ++documents_[kind];
    }
    set_metadata(document, "pii", counts);
    return true;
  }

  void add_counts(Counts& counts) const override {
    counts[kPersonalWords] += words_;
    for (size_t kind = 0; kind < counts_.size(); ++kind) {
      if (all_spans_[kind] == 0) continue;
      counts[kPersonalSpans + finder_.kind_names()[kind]] += all_spans_[kind];
      counts[kPersonalDocuments + finder_.kind_names()[kind]] += documents_[kind];
    }
  }

 private:
  /// What extract and qa take from a page's text into its metadata. It opens the text, too, and is not counted again.
  bool mask_title(Document& document, uint64_t key, bool& complete) {
    const std::string title = metadata_text(document, "title");
    complete = finder_.find(title, spans_);
    if (spans_.empty()) return false;
    set_metadata(document, "title", replaced(title, spans_, finder_, by_, key));
    return true;
  }

  const PersonalFinder& finder_;
  const PiiOptions& options_;
  Replacement by_;
  std::vector<PersonalSpan> spans_;
  std::vector<uint64_t> counts_;  // of the document at hand, by kind
  std::vector<uint64_t> all_spans_, documents_;
  uint64_t words_ = 0;
  RuleNumber spans_rule_ = kSpans;  // of the source at hand; the other is not defined for its documents
};

class PiiStep : public DocumentStep {
 public:
  PiiStep(PiiOptions options, Replacement by, std::vector<UserPattern> patterns, std::vector<std::string> inputs)
      : options_(std::move(options)),
        by_(by),
        finder_(options_.kinds, options_.code, std::move(patterns)),
        inputs_(std::move(inputs)) {}

  std::vector<Rule> rules() const override {
    const auto spans = [](const char* name, int64_t most) {
      Rule rule{.name = name};
      if (most > 0) rule.most = static_cast<double>(most);
      return rule;
    };
    return {spans("spans", options_.max_spans),
            spans("licensed_spans", options_.max_licensed_spans),
            {.name = "pattern_limit", .most = 0}};
  }
  std::vector<std::string> inputs() const override { return inputs_; }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<PiiLook>(finder_, options_, by_); }

 private:
  PiiOptions options_;
  Replacement by_;
  PersonalFinder finder_;
  std::vector<std::string> inputs_;
};

std::shared_ptr<const Step> read_pii(OptionTable& table) {
  PiiOptions options;
  table.read(options);
  const auto refuse = [&](const char* key, const std::string& message) {
    throw UserError::recipe(table.where(key), fmt::format("{}: {}", key, message));
  };
  const auto* by = std::ranges::find(kReplacements, options.replace, [](const auto& row) { return row.first; });
  if (by == kReplacements.end())
    refuse("replace", fmt::format("got '{}', expected placeholder, fake or remove", printable(options.replace)));
  for (const auto& [key, most] :
       {std::pair("max_spans", options.max_spans), std::pair("max_licensed_spans", options.max_licensed_spans)})
    if (most < 0) refuse(key, fmt::format("got {}, expected 0 or more", most));
  std::set<std::string> names;
  for (const PersonalKind& kind : personal_kinds()) names.insert(kind.name);
  for (const std::string& kind : options.kinds)
    if (!names.contains(kind))
      refuse("kinds",
             fmt::format("got '{}', expected some of EMAIL, IP, PHONE, CARD, IBAN, SSN, SECRET", printable(kind)));
  std::vector<UserPattern> patterns;
  std::vector<std::string> inputs;
  for (OptionTable& pattern : table.tables("pattern")) {
    UserPatternOptions one;
    pattern.read(one);
    patterns.emplace_back(one, pattern.where());
    if (!names.insert(one.name).second)
      throw UserError::recipe(pattern.where("name"),
                              fmt::format("name: '{}' is the name of another kind; choose another", one.name));
    inputs.push_back(fmt::format("pattern {} {} {}", one.name, one.check, one.regex));
  }
  return std::make_shared<PiiStep>(std::move(options), by->second, std::move(patterns), std::move(inputs));
}

}  // namespace

extern const StepKind kPiiStep;
const StepKind kPiiStep = {
    .kind = "pii",
    .about =
        "masks personal data and secrets: mail and IP addresses, telephone, card, account and social security "
        "numbers, keys and passwords",
    .example = "coppice data pii documents/ -o masked/ --replace fake",
    .options = step_options<PiiOptions>,
    .read = read_pii,
};

}  // namespace coppice
