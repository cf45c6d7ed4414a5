// The step `words`: documents full of the words of a list go. Both a number of different entries and a share of the
// words must be reached: one hit is no reason, for it would take medical texts and the language of minorities with it
// (Dodge et al. 2021, arXiv 2104.08758, of C4's list).
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/cli/options.h"
#include "src/corpus/step.h"
#include "src/corpus/unsafe/word_list.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

struct WordsOptions {
  std::vector<std::string> lists;
  std::string rule = "unsafe_words";
  int64_t min_distinct = 3;
  double min_rate = 0.005;

  template <class Field>
  void visit_fields(Field& field) {
    field("lists", lists, Mark::place,
          "files of one entry a line, of a word or several; # opens a comment; empty = a dozen English words of the "
          "pornography trade");
    field("rule", rule, Mark::decides, "what the rule and the counts in metadata are called");
    field("min_distinct", min_distinct, Mark::decides, "a document goes that has so many different entries ...");
    field("min_rate", min_rate, Mark::decides, "... and of whose words they are at least this share");
  }
};

class WordsLook : public DocumentLook {
 public:
  WordsLook(const WordList& list, const WordsOptions& options) : list_(list), options_(options) {}

  bool look(Document& document, std::span<double> values, bool) override {
    const WordHits hits = list_.find(document.text, room_);
    values[0] = hits.rate() >= options_.min_rate ? static_cast<double>(hits.distinct) : 0;
    if (hits.found == 0) return false;
    set_metadata(document, options_.rule, {{"found", hits.found}, {"distinct", hits.distinct}, {"rate", hits.rate()}});
    return true;
  }

 private:
  const WordList& list_;
  const WordsOptions& options_;
  WordList::Room room_;
};

class WordsStep : public DocumentStep {
 public:
  explicit WordsStep(WordsOptions options)
      : options_(std::move(options)),
        list_(options_.lists.empty() ? WordList::built_in()
                                     : WordList::read({options_.lists.begin(), options_.lists.end()})) {
    for (const std::string& list : options_.lists) inputs_.push_back(sha256_file(list));
  }
  /// Its value: different entries, in a document in which they have their share of the words; 0 elsewhere.
  std::vector<Rule> rules() const override {
    return {{.name = options_.rule, .most = static_cast<double>(options_.min_distinct) - 1}};
  }
  std::vector<std::string> inputs() const override { return inputs_; }
  std::unique_ptr<DocumentLook> start() const override { return std::make_unique<WordsLook>(list_, options_); }

 private:
  WordsOptions options_;
  WordList list_;
  std::vector<std::string> inputs_;
};

std::shared_ptr<const Step> read_words_step(OptionTable& table) {
  WordsOptions options;
  table.read(options);
  if (options.min_distinct < 1)
    throw UserError::recipe(table.where("min_distinct"),
                            fmt::format("min_distinct: got {}, expected at least 1", options.min_distinct));
  if (!(options.min_rate >= 0 && options.min_rate <= 1))
    throw UserError::recipe(table.where("min_rate"),
                            fmt::format("min_rate: got {}, expected 0 to 1", options.min_rate));
  return std::make_shared<WordsStep>(std::move(options));
}

}  // namespace

extern const StepKind kWordsStep;
const StepKind kWordsStep = {
    .kind = "words",
    .about = "documents full of the words of a list go: what is not fit to be learned from",
    .example = "coppice data words crawl -o fit --lists unsafe.txt --min-distinct 3",
    .options = step_options<WordsOptions>,
    .read = read_words_step,
};

}  // namespace coppice
