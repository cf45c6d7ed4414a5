// extract: pages become the text of their article; documents that are no pages pass unchanged.
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/licences/page_marks.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"
#include "src/text/html/page_text.h"

namespace coppice {
namespace {

struct ExtractOptions {
  std::string join = "reader_or_boilerpipe";
  bool comments = false, formulas = true, opt_out = true;
  int64_t min_length = 200;

  template <class Field>
  void visit_fields(Field& field) {
    field("join", join, Mark::decides,
          "reader_or_boilerpipe (the first unless it is shorter than 0.3 of the second), reader, boilerpipe, "
          "intersection, union, or either (the reader's; where a step behind drops that, boilerpipe's)");
    field("comments", comments, Mark::decides, "keep what readers wrote below the page");
    field("formulas", formulas, Mark::decides, "keep formulas as TeX between $ signs");
    field("opt_out", opt_out, Mark::decides,
          "let pages go that say noindex, noai or none to robots, or tdm-reservation: 1");
    field("min_length", min_length, Mark::decides, "characters of text that a page must have");
  }
};

enum RuleIndex { kDeepRule, kLargeRule, kTimeRule, kOptOutRule, kEmptyRule, kShortRule };

constexpr const char* kEither = "either";

class ExtractLook : public DocumentLook {
 public:
  ExtractLook(const PageOptions& options, bool either, double min_length)
      : options_(options), either_(either), min_length_(min_length) {}

  bool look(Document& document, std::span<double> values, bool) override {
    other_.reset();
    if (!document.is_page) return false;
    PageTexts pages;
    if (either_)
      pages = extract_page_by_both(document.text, options_);
    else
      pages.reader = extract_page(document.text, options_);
    const bool reads_other = either_ && !is_enough(pages.reader) && is_enough(pages.boilerpipe);
    const PageText& page = reads_other ? pages.boilerpipe : pages.reader;
    const auto refused = [&](Refusal reason) { return page.refusal == reason ? 1.0 : 0.0; };
    values[kDeepRule] = refused(Refusal::too_deep);
    values[kLargeRule] = refused(Refusal::too_large);
    values[kTimeRule] = refused(Refusal::timeout);
    values[kOptOutRule] = refused(Refusal::opt_out);
    if (page.refusal != Refusal::none) return false;
    values[kEmptyRule] = page.text.empty() ? 1 : 0;
    values[kShortRule] = static_cast<double>(page.chars);
    const PageMarks marks = find_page_marks(document.text);
    document.text.clear();
    document.is_page = false;
    keep_metadata(page, marks, document);
    if (either_ && !reads_other && is_enough(pages.boilerpipe) && pages.boilerpipe.text != page.text) {
      other_ = document;
      write(pages.boilerpipe, *other_);
    }
    write(page, document);
    return true;
  }

  std::optional<Document> other() override { return std::exchange(other_, std::nullopt); }

 private:
  /// Whether no rule of this step's drops it.
  bool is_enough(const PageText& page) const {
    return page.refusal == Refusal::none && !page.text.empty() && static_cast<double>(page.chars) >= min_length_;
  }

  static void keep_metadata(const PageText& page, const PageMarks& marks, Document& document) {
    const PageMetadata& metadata = page.metadata;
    if (!metadata.title.empty()) set_metadata(document, "title", metadata.title);
    for (const auto& [name, value] : {std::pair{"url", &metadata.url}, std::pair{"date", &metadata.date}})
      if (!value->empty() && member_text(document, name).empty()) set_metadata(document, name, *value);
    keep_page_marks(marks, document);
  }

  static void write(const PageText& page, Document& document) {
    document.text = page.metadata.title;
    if (!document.text.empty() && !page.text.empty()) document.text += "\n\n";
    document.text += page.text;
    if (page.replaced > 0) set_metadata(document, "replaced_characters", page.replaced);
  }

  PageOptions options_;
  bool either_;
  double min_length_;
  std::optional<Document> other_;
};

class ExtractStep : public DocumentStep {
 public:
  ExtractStep(const PageOptions& options, bool either, int64_t min_length)
      : options_(options), either_(either), min_length_(static_cast<double>(min_length)) {}

  std::vector<Rule> rules() const override {
    return {{.name = "too_deep", .most = 0}, {.name = "too_large", .most = 0}, {.name = "timeout", .most = 0},
            {.name = "opt_out", .most = 0},  {.name = "empty", .most = 0},     {.name = "short", .least = min_length_}};
  }
  Pages pages() const override { return Pages::turns_to_text; }
  bool reads_markup() const override { return true; }
  std::unique_ptr<DocumentLook> start() const override {
    return std::make_unique<ExtractLook>(options_, either_, min_length_);
  }

 private:
  PageOptions options_;
  bool either_;
  double min_length_;
};

std::shared_ptr<const Step> read_extract(OptionTable& table) {
  ExtractOptions options;
  table.read(options);
  const bool either = options.join == kEither;
  const std::optional<PageJoin> join = either ? PageJoin::reader : find_page_join(options.join);
  if (!join)
    throw UserError::recipe(table.where("join"), fmt::format("join: got '{}', expected reader_or_boilerpipe, reader, "
                                                             "boilerpipe, intersection, union or either",
                                                             options.join));
  if (options.min_length < 0)
    throw UserError::recipe(table.where("min_length"),
                            fmt::format("min_length: got {}, expected at least 0", options.min_length));
  return std::make_shared<ExtractStep>(PageOptions{.join = *join,
                                                   .comments = options.comments,
                                                   .formulas = options.formulas,
                                                   .respects_opt_out = options.opt_out},
                                       either, options.min_length);
}

}  // namespace

extern const StepKind kExtractStep;
const StepKind kExtractStep = {
    .kind = "extract",
    .about = "takes the article out of web pages, with its formulas, and lets go what has none",
    .example = "coppice data extract 'crawl/*.warc.gz' -o pages --comments",
    .options = step_options<ExtractOptions>,
    .read = read_extract,
};

}  // namespace coppice
