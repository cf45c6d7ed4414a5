// licences: documents stay by what their licence allows.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/licences/page_marks.h"
#include "src/corpus/licences/spdx.h"
#include "src/corpus/step.h"
#include "src/text/ascii_case.h"
#include "src/text/document_metadata.h"

namespace coppice {

namespace {

struct LicencesOptions {
  std::vector<std::string> allow, deny;
  bool page = true;

  template <class Field>
  void visit_fields(Field& field) {
    field("allow", allow, Mark::decides,
          "SPDX ids or patterns such as CC-BY-*; one side of OR and both of AND must be allowed; empty = all");
    field("deny", deny, Mark::decides, "SPDX ids or patterns that are not; comes before allow");
    field("page", page, Mark::decides,
          "where a document names no licence, what its page says decides, before its source; of several all must be "
          "allowed");
  }
};

enum { kDenied, kNotAllowed, kNoLicence, kNumRules };

/// Ids and addresses alike.
std::string licence_id(std::string_view licence) {
  const std::string id = licence_of_address(licence);
  return id.empty() ? std::string(trimmed_ascii(licence)) : id;
}

/// All of them apply: what the document names, or the marks of its page, or what its source says of such as name none.
std::vector<std::string> licences_of(const Document& document, bool page) {
  std::vector<std::string> found;
  const auto add = [&](const Json& value) {
    if (!value.is_string()) return;
    const std::string& licence = value.get_ref<const std::string&>();
    if (!licence.empty() && !equals_ignoring_case(licence, "unknown")) found.push_back(licence_id(licence));
  };
  const auto add_all = [&](std::string_view name) {
    const Json value = find_member(document, {name}).value_or(Json());
    if (value.is_array())
      for (const Json& entry : value) add(entry);
    else
      add(value);
  };
  if (!document.is_source_license) add(document.license);
  if (found.empty()) add_all("license");  // beside its text, or a list, which is no field of a document
  if (found.empty() && page) add_all("page_license");
  if (found.empty() && page && document.is_page) found = find_page_marks(document.text).licences;
  if (found.empty()) add(document.license);
  return found;
}

class LicencesLook : public DocumentLook {
 public:
  explicit LicencesLook(const LicencesOptions& options) : options_(options) {}

  bool look(Document& document, std::span<double> values, bool) override {
    const auto is_free = [&](std::string_view id) { return !matches_licence(options_.deny, id); };
    const auto is_fine = [&](std::string_view id) {
      return is_free(id) && (options_.allow.empty() || matches_licence(options_.allow, id));
    };
    licences_ = licences_of(document, options_.page);
    bool is_denied = false, is_outside = false;
    for (const std::string& licence : licences_) {
      is_denied |= !is_licence_allowed(licence, is_free);
      is_outside |= !is_licence_allowed(licence, is_fine);
    }
    values[kDenied] = is_denied;
    values[kNotAllowed] = is_outside && !is_denied;
    values[kNoLicence] = licences_.empty() && !options_.allow.empty();
    return false;
  }
  std::string details() const override { return licences_.empty() ? "" : details_of({{"licences", licences_}}); }

 private:
  const LicencesOptions& options_;
  std::vector<std::string> licences_;  // of the document that was seen last
};

class LicencesStep : public DocumentStep {
 public:
  explicit LicencesStep(LicencesOptions options) : options_(std::move(options)) {}
  std::vector<Rule> rules() const override {
    return {{"licence_denied", 0, 0}, {"licence_not_allowed", 0, 0}, {"no_licence", 0, 0}};
  }
  Pages pages() const override { return Pages::takes; }
  bool reads_markup() const override { return options_.page; }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<LicencesLook>(options_); }

 private:
  const LicencesOptions options_;
};

std::shared_ptr<const Step> read(OptionTable& table) {
  LicencesOptions options;
  table.read(options);
  if (options.allow.empty() && options.deny.empty())
    throw UserError::recipe(table.where(), "a step 'licences' without allow and deny keeps everything; name licences");
  return std::make_shared<LicencesStep>(std::move(options));
}

}  // namespace

extern const StepKind kLicencesStep;
const StepKind kLicencesStep = {"licences", "keeps documents by their licence, or by what their page says of it",
                                "coppice data licences pages/ --allow 'CC-BY-*' --allow CC0-1.0 -o out",
                                step_options<LicencesOptions>, read};

}  // namespace coppice
