// qa: pages of sites of questions and answers become texts, by the selectors of site files. Pages of other sites, and
// texts, pass as they are.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/cli/options.h"
#include "src/corpus/licences/page_marks.h"
#include "src/corpus/maths/qa_page.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

struct QaOptions {
  std::vector<std::string> sites;
  bool only_sites = false;
  double min_answers = 1;
  double max_unmatched = 0.2;

  template <class Field>
  void visit_fields(Field& field) {
    field("sites", sites, Mark::place, "site files: [[maths.site]] tables with selectors");
    field("only_sites", only_sites, Mark::decides, "pages of other sites go");
    field("min_answers", min_answers, Mark::decides, "answers of a question at least");
    field("max_unmatched", max_unmatched, Mark::cadence,
          "share of a site's pages without a question from which on the run fails: its selectors are out of date");
  }
};

enum Place : size_t { kOtherSite, kOptOut, kUnreadable, kUnmatched, kVotes, kAnswers, kNumRules };

const std::vector<Rule> kRules = {
    {.name = "other_site", .most = 0},
    {.name = "opt_out", .most = 0},
    {.name = "unreadable", .most = 0},  // too deep, too large, too slow
    {.name = "unmatched", .most = 0},   // no question where the selector looks for it
    {.name = "votes", .least = 0},      // of the question, above the site's min_votes
    {.name = "answers"},
};

class QaLook : public DocumentLook {
 public:
  QaLook(const QaOptions& options, const std::vector<QaSite>& sites)
      : options_(options), sites_(sites), pages_(sites.size()), unmatched_(sites.size()) {}

  bool look(Document& document, std::span<double> values, bool) override {
    if (!document.is_page) return false;
    const std::string url = member_text(document, "url");
    const QaPage page = read_qa_page(document.text, url, sites_);
    if (options_.only_sites) values[kOtherSite] = page.site == nullptr ? 1 : 0;
    if (page.site == nullptr) return false;
    const bool opts_out = page.refusal == Refusal::opt_out;
    values[kOptOut] = opts_out ? 1 : 0;
    values[kUnreadable] = page.refusal != Refusal::none && !opts_out ? 1 : 0;
    if (page.refusal != Refusal::none) return false;
    values[kUnmatched] = page.is_found ? 0 : 1;
    const auto number = static_cast<size_t>(page.site - sites_.data());
    ++pages_[number];
    if (!page.is_found) {
      ++unmatched_[number];
      return false;
    }
    if (page.has_votes && page.site->min_votes) values[kVotes] = page.votes - *page.site->min_votes;
    values[kAnswers] = static_cast<double>(page.answers.size());
    keep_page_marks(find_page_marks(document.text), document);
    document.text = qa_text(page);
    document.is_page = false;
    set_metadata(document, "site", page.site->name);
    if (page.has_votes) set_metadata(document, "votes", page.votes);
    if (!page.title.empty()) set_metadata(document, "title", page.title);
    if (!page.date.empty() && member_text(document, "date").empty()) set_metadata(document, "date", page.date);
    return true;
  }

  void add_counts(Counts& counts) const override {
    for (size_t i = 0; i < sites_.size(); ++i) {
      if (pages_[i] == 0) continue;
      counts["pages of " + sites_[i].name] += pages_[i];
      counts["unmatched pages of " + sites_[i].name] += unmatched_[i];
    }
  }

 private:
  const QaOptions& options_;
  const std::vector<QaSite>& sites_;
  std::vector<uint64_t> pages_, unmatched_;  // by site
};

class QaStep : public DocumentStep {
 public:
  explicit QaStep(OptionTable& table) {
    table.read(options_);
    if (options_.sites.empty())
      throw UserError::recipe(table.where("sites"),
                              "sites: got no file, expected site files such as recipes/sites/stackexchange.toml");
    if (options_.max_unmatched < 0 || options_.max_unmatched > 1)
      throw UserError::recipe(table.where("max_unmatched"),
                              fmt::format("max_unmatched: got {}, expected 0 to 1", options_.max_unmatched));
    for (const std::string& file : options_.sites)
      for (QaSite& site : read_sites(file)) sites_.push_back(std::move(site));
  }

  std::vector<Rule> rules() const override {
    std::vector<Rule> rules = kRules;
    rules[kAnswers].least = options_.min_answers;
    return rules;
  }
  std::vector<std::string> inputs() const override {
    std::vector<std::string> hashes;
    for (const std::string& file : options_.sites) hashes.push_back(sha256_file(file));
    return hashes;
  }
  Pages pages() const override { return Pages::turns_to_text; }
  bool reads_markup() const override { return true; }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<QaLook>(options_, sites_); }

  void finish(const Counts& totals) const override {
    const auto total = [&](const std::string& name) -> uint64_t {
      const auto found = totals.find(name);
      return found == totals.end() ? 0 : found->second;
    };
    for (const QaSite& site : sites_) {
      const uint64_t pages = total("pages of " + site.name), unmatched = total("unmatched pages of " + site.name);
      if (static_cast<double>(unmatched) > options_.max_unmatched * static_cast<double>(pages))
        throw UserError::bad_file(site.name,
                                  fmt::format("the selectors found no question on {} of {} pages, expected at "
                                              "most {}%: the site's markup has changed; mend its "
                                              "[[maths.site]], or narrow its paths",
                                              unmatched, pages, 100 * options_.max_unmatched));
    }
  }

 private:
  QaOptions options_;
  std::vector<QaSite> sites_;
};

}  // namespace

extern const StepKind kQaStep;
const StepKind kQaStep = {
    "qa",
    "questions and answers out of the pages of their sites, by selectors",
    "coppice data qa pages.warc.gz --sites recipes/sites/stackexchange.toml -o qa",
    step_options<QaOptions>,
    [](OptionTable& table) -> std::shared_ptr<const Step> { return std::make_shared<QaStep>(table); },
};

}  // namespace coppice
