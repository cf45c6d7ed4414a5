// Long lines that several documents share are cut everywhere but at their first place, and a document that loses more
// than half of its text goes.
#include <fmt/format.h>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/dedup/paragraphs.h"
#include "src/corpus/step.h"

namespace coppice {
namespace {

struct ParagraphsOptions {
  int64_t min_chars = 200, min_documents = 3;
  double max_lost = 0.5;

  template <class Field>
  void visit_fields(Field& field) {
    field("min_chars", min_chars, Mark::decides, "code points of a line that is looked at");
    field("min_documents", min_documents, Mark::decides, "a line in as many documents is cut after its first place");
    field("max_lost", max_lost, Mark::decides, "a document that loses a larger share of its text goes");
  }
};

class Decisions : public GroupDecisions {
 public:
  Decisions(const GroupPlace& place, uint32_t file, const ParagraphOptions& options, double max_lost)
      : options_(options), cuts_(place, file, options), max_lost_(max_lost) {}

  bool look(Document& document, std::span<double> values, std::string&) override {
    const DocumentCuts cuts = cuts_.next();
    values[0] = cuts.lost;
    if (cuts.lines.empty()) return false;  // what loses too much is cut as well, for the rules that measure it behind
    std::string left;
    uint64_t long_lines = 0;
    auto cut = cuts.lines.begin();
    for_each_line(document.text, [&](std::string_view line) {
      if (is_long(line, options_) && cut != cuts.lines.end() && *cut == long_lines++) {
        ++cut;
      } else {
        left += line;
      }
    });
    if (cut != cuts.lines.end()) cuts_.damaged("a line that its document does not have");
    if (!left.empty() && left.back() == '\n' && document.text.back() != '\n') left.pop_back();
    document.text = std::move(left);
    return true;
  }
  bool goes() override { return cuts_.next().lost > max_lost_; }

 private:
  ParagraphOptions options_;
  LineCuts cuts_;
  double max_lost_;
};

class ParagraphsStep : public GroupStep {
 public:
  explicit ParagraphsStep(const ParagraphsOptions& options)
      : options_{.min_chars = options.min_chars, .min_documents = options.min_documents}, max_lost_(options.max_lost) {}

  std::vector<Rule> rules() const override { return {{.name = "lost_ratio", .most = max_lost_}}; }
  bool changes_texts() const override { return true; }
  std::unique_ptr<GroupNotes> note(const GroupPlace& place, uint32_t file) const override {
    return note_lines(place, file, options_);
  }
  uint32_t num_parts(const GroupPlace& place) const override { return num_line_parts(place, options_); }
  void reduce(const GroupPlace& place, uint32_t part) const override { write_line_part(place, options_, part); }
  void settle(const GroupPlace& place) const override { settle_lines(place, options_); }
  std::unique_ptr<GroupDecisions> decide(const GroupPlace& place, uint32_t file) const override {
    return std::make_unique<Decisions>(place, file, options_, max_lost_);
  }

 private:
  ParagraphOptions options_;
  double max_lost_;
};

std::shared_ptr<const Step> read_paragraphs(OptionTable& table) {
  ParagraphsOptions options;
  table.read(options);
  const auto refuse = [&](const char* key, const std::string& message) {
    throw UserError::recipe(table.where(key), fmt::format("{}: got {}", key, message));
  };
  if (options.min_chars < 1) refuse("min_chars", fmt::format("{}, expected at least 1", options.min_chars));
  if (options.min_documents < 2) refuse("min_documents", fmt::format("{}, expected at least 2", options.min_documents));
  if (!(options.max_lost >= 0 && options.max_lost <= 1))
    refuse("max_lost", fmt::format("{}, expected a share from 0 to 1", options.max_lost));
  return std::make_shared<ParagraphsStep>(options);
}

}  // namespace

extern const StepKind kParagraphsStep = {
    .kind = "paragraphs",
    .about = "cuts long lines that several documents share",
    .example = "coppice data paragraphs press/*.jsonl.zst -o cut --min-documents 3",
    .options = step_options<ParagraphsOptions>,
    .read = read_paragraphs,
};

}  // namespace coppice
