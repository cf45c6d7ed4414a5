// code: keeps source files of chosen languages under chosen licences that people wrote (StarCoder, arXiv 2305.06161).
// A document's path is metadata.path, path or max_stars_repo_path of its line, else the file that it was read from.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/nearest.h"
#include "src/cli/options.h"
#include "src/corpus/code/comments.h"
#include "src/corpus/code/generated.h"
#include "src/corpus/code/languages.h"
#include "src/corpus/code/licence_folders.h"
#include "src/corpus/code/licence_text.h"
#include "src/corpus/code/measures.h"
#include "src/corpus/code/notebook.h"
#include "src/corpus/licences/spdx.h"
#include "src/corpus/step.h"
#include "src/text/ascii_case.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

struct CodeOptions {
  std::vector<std::string> languages;
  std::vector<std::string> allow = {"MIT", "MIT-0",   "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD",
                                    "ISC", "CC0-1.0", "Unlicense",  "Zlib",         "BSL-1.0"};
  std::string folder;
  double licence_likeness = 0.95;
  double min_bytes = 20, max_bytes = 1e6;
  double longest_line = 1000, mean_line = 100;
  double alphanumeric = 0.25;
  double min_comments = 0.01, max_comments = 0.8;
  double minified = 0.6, data = 0.5;
  bool keep_headers = false;

  template <class Field>
  void visit_fields(Field& field) {
    field("languages", languages, Mark::decides, "which programming languages stay; empty = all that are known");
    field("allow", allow, Mark::decides, "SPDX ids of licences that are allowed");
    field("folder", folder, Mark::place,
          "the folder that paths of documents start from: LICENSE and COPYING files are looked for in it");
    field("licence_likeness", licence_likeness, Mark::decides,
          "least share of word pairs (Dice coefficient) that a licence file shares with the licence it is");
    field("min_bytes", min_bytes, Mark::decides, "bytes at least");
    field("max_bytes", max_bytes, Mark::decides, "bytes at most");
    field("longest_line", longest_line, Mark::decides, "characters of the longest line at most");
    field("mean_line", mean_line, Mark::decides, "characters of a line at most, on average");
    field("alphanumeric", alphanumeric, Mark::decides, "least share of letters and digits");
    field("min_comments", min_comments, Mark::decides, "least share of comments");
    field("max_comments", max_comments, Mark::decides, "largest share of comments");
    field("minified", minified, Mark::decides, "largest share of bytes in lines of more than 300 characters");
    field("data", data, Mark::decides, "largest share of numbers and of long runs of base64");
    field("keep_headers", keep_headers, Mark::decides, "leaves the licence comment at the top of a file where it is");
  }
};

/// In the order of rules().
enum Place : size_t {
  kLockFile,
  kVendored,
  kGenerated,
  kXml,
  kLanguage,
  kNoLicence,
  kLicence,
  kBytes,
  kLongestLine,
  kMeanLine,
  kAlphanumeric,
  kComments,
  kMinified,
  kData,
  kNumRules
};

/// What the record says under the first of the names that it has, where that is a text.
std::string find_text(const Document& document, std::initializer_list<std::string_view> names) {
  const std::optional<Json> value = find_member(document, names);
  return value && value->is_string() ? value->get<std::string>() : std::string();
}

/// Texts that say a licence: not "", "unknown" and the like.
std::vector<std::string> licences_of(const Json& value) {
  std::vector<std::string> licences;
  const auto add = [&](const Json& one) {
    if (!one.is_string()) return;
    const std::string& text = one.get_ref<const std::string&>();
    for (const char* nothing : {"", "unknown", "none", "no_license", "other"})
      if (equals_ignoring_case(text, nothing)) return;
    licences.push_back(text);
  };
  if (value.is_array())
    for (const Json& one : value) add(one);
  else
    add(value);
  return licences;
}

std::string path_of(const Document& document) {
  std::string path = find_text(document, {"path", "max_stars_repo_path"});
  return !path.empty() || document.file == nullptr ? path : *document.file;
}

class CodeLook : public DocumentLook {
 public:
  CodeLook(const CodeOptions& options, const std::vector<const ProgrammingLanguage*>& languages,
           const LicenceFolders& folders, std::vector<Rule> rules)
      : options_(options), languages_(languages), folders_(folders), rules_(std::move(rules)) {}

  bool look(Document& document, std::span<double> values, bool all) override {
    bool goes = false;  // by the rules until now
    const auto drops = [&](Place place, double value) {
      values[place] = value;
      goes |= rules_[place].drops(value);
      return !all && goes;
    };
    found_.clear();
    const std::string path = path_of(document);
    bool changed = take_line_ends(document.text);
    std::optional<Notebook> notebook;
    if (path.ends_with(".ipynb") && (notebook = read_notebook(document.text))) {
      document.text = std::move(notebook->text);
      changed = true;
    }
    if (drops(kLockFile, is_lock_file(path)) || drops(kVendored, is_vendored(path)) ||
        drops(kGenerated, is_generated(path, document.text)) || drops(kXml, is_xml(document.text)))
      return changed;

    const ProgrammingLanguage* const language = notebook ? of_notebook(*notebook) : of_file(document, path);
    if (!goes && language != nullptr) found_["language"] = language->name;
    if (drops(kLanguage, std::ranges::find(languages_, language) == languages_.end())) return changed;
    const std::vector<std::string> licences = find_licences(document, path);
    if (!goes && !licences.empty()) found_["licences"] = licences;
    const bool allowed = std::ranges::all_of(licences, [&](const std::string& one) { return allows(one); });
    if (drops(kNoLicence, licences.empty()) || drops(kLicence, !allowed)) return changed;

    if (drops(kBytes, static_cast<double>(document.text.size()))) return changed;
    const CodeMeasures measures = measure_code(document.text);
    if (drops(kLongestLine, measures.longest_line) || drops(kMeanLine, measures.mean_line) ||
        drops(kAlphanumeric, measures.alphanumeric) ||
        (language != nullptr && !notebook && drops(kComments, comment_share(document.text, language->comments))) ||
        drops(kMinified, measures.minified) || drops(kData, measures.data))
      return changed;

    if (language == nullptr) return changed;  // goes
    if (!options_.keep_headers && !notebook) cut_licence_header(document.text, language->comments);
    document.license = fmt::format("{}", fmt::join(licences, " AND "));
    document.is_source_license = false;
    set_metadata(document, "language", std::string(language->name));
    if (!path.empty()) set_metadata(document, "path", path);
    if (const std::string repository = find_text(document, {"repository", "repo_name", "max_stars_repo_name"});
        !repository.empty())
      set_metadata(document, "repository", repository);
    return true;
  }
  std::string details() const override { return details_of(found_); }

 private:
  /// CRLF and CR become LF.
  static bool take_line_ends(std::string& text) {
    if (text.find('\r') == std::string::npos) return false;
    size_t out = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
      text[out++] = text[i] == '\r' ? '\n' : text[i];
    }
    text.resize(out);
    return true;
  }

  const ProgrammingLanguage* of_file(const Document& document, const std::string& path) const {
    return path.empty() ? find_language(find_text(document, {"language", "lang"})) : language_of(path, document.text);
  }
  static const ProgrammingLanguage* of_notebook(const Notebook& notebook) {
    return find_language(notebook.language.empty() ? "Python" : notebook.language);
  }

  /// Of the first place that names some: the record, the file's own line, files beside it or above; else its source's.
  std::vector<std::string> find_licences(const Document& document, const std::string& path) const {
    std::vector<std::string> licences;
    if (!document.is_source_license) licences = licences_of(document.license);
    if (licences.empty())
      licences =
          licences_of(find_member(document, {"license", "licenses", "max_stars_repo_licenses"}).value_or(Json()));
    if (licences.empty()) licences = licences_of(find_spdx_line(document.text));
    if (licences.empty()) licences = folders_.of(path);
    return licences.empty() && document.is_source_license ? licences_of(document.license) : licences;
  }

  bool allows(const std::string& expression) const {
    return spdx_allows(expression, [&](std::string_view id) { return matches_licence(options_.allow, id); })
        .value_or(false);
  }

  const CodeOptions& options_;
  const std::vector<const ProgrammingLanguage*>& languages_;
  const LicenceFolders& folders_;
  const std::vector<Rule> rules_;
  nlohmann::ordered_json found_;  // of the document that was seen last: its language and licences, if it came so far
};

class CodeStep : public DocumentStep {
 public:
  explicit CodeStep(OptionTable& table) {
    table.read(options_);
    for (const std::string& name : options_.languages) {
      languages_.push_back(find_language(name));
      if (languages_.back() != nullptr) continue;
      std::vector<std::string> known;
      for (const ProgrammingLanguage& row : languages()) known.emplace_back(row.name);
      throw UserError::recipe(table.where("languages"),
                              fmt::format("languages: got '{}', expected some of {}; did you "
                                          "mean '{}'?",
                                          printable(name), fmt::join(known, ", "), nearest(name, known)));
    }
    if (languages_.empty())
      for (const ProgrammingLanguage& row : languages()) languages_.push_back(&row);
    if (options_.allow.empty())
      throw UserError::recipe(table.where("allow"),
                              "allow: got no licence, expected SPDX ids; without one no file stays");
    for (const std::string& id : options_.allow)
      if (id.find_first_of(" ,()") != std::string::npos)
        throw UserError::recipe(table.where("allow"),
                                fmt::format("allow: got '{}', expected an SPDX id such as MIT", printable(id)));
    if (options_.licence_likeness < 0.5 || options_.licence_likeness > 1)
      throw UserError::recipe(table.where("licence_likeness"),
                              fmt::format("licence_likeness: got {}, expected 0.5 to 1", options_.licence_likeness));
    if (!options_.folder.empty()) folders_ = LicenceFolders(options_.folder, options_.licence_likeness);
  }

  std::vector<Rule> rules() const override {
    const CodeOptions& o = options_;
    std::vector<Rule> rules(kNumRules);
    rules[kLockFile] = {.name = "lock_file", .most = 0};
    rules[kVendored] = {.name = "vendored", .most = 0};
    rules[kGenerated] = {.name = "generated", .most = 0};
    rules[kXml] = {.name = "xml", .most = 0};
    rules[kLanguage] = {.name = "language", .most = 0};
    rules[kNoLicence] = {.name = "no_licence", .most = 0};
    rules[kLicence] = {.name = "licence", .most = 0};
    rules[kBytes] = {.name = "bytes", .least = o.min_bytes, .most = o.max_bytes};
    rules[kLongestLine] = {.name = "longest_line", .most = o.longest_line};
    rules[kMeanLine] = {.name = "mean_line", .most = o.mean_line};
    rules[kAlphanumeric] = {.name = "alphanumeric", .least = o.alphanumeric};
    rules[kComments] = {.name = "comments", .least = o.min_comments, .most = o.max_comments};
    rules[kMinified] = {.name = "minified", .most = o.minified};
    rules[kData] = {.name = "data", .most = o.data};
    return rules;
  }
  std::vector<std::string> inputs() const override {
    return options_.folder.empty() ? std::vector<std::string>{} : std::vector<std::string>{folders_.fingerprint()};
  }
  std::unique_ptr<DocumentLook> start() const override {
    return std::make_unique<CodeLook>(options_, languages_, folders_, rules());
  }

 private:
  CodeOptions options_;
  std::vector<const ProgrammingLanguage*> languages_;
  LicenceFolders folders_;
};

}  // namespace

extern const StepKind kCodeStep;
const StepKind kCodeStep = {
    "code",
    "source files of chosen languages and licences; generated, packed and vendored ones go",
    "coppice data code repositories.jsonl.zst -o code",
    step_options<CodeOptions>,
    [](OptionTable& table) -> std::shared_ptr<const Step> { return std::make_shared<CodeStep>(table); },
};

}  // namespace coppice
