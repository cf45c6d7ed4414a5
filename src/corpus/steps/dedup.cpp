// Documents that are copies of others, exactly or nearly: those of all sources at once, or of each by itself.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/cli/options.h"
#include "src/corpus/dedup/decisions.h"
#include "src/corpus/dedup/groups.h"
#include "src/corpus/dedup/settle.h"
#include "src/corpus/step.h"
#include "src/text/document_metadata.h"

namespace coppice {
namespace {

constexpr int64_t kMostValues = 1024;  // of a signature
constexpr std::string_view kExpectedKeep = "first, longest, newest, score:<name> or none";

struct DedupOptions {
  std::string shingle = "words:5";
  int64_t bands = 14, rows = 8;
  double min_similarity = 0.7;
  std::string verify = "signature", cluster = "verified", keep = "first", scope = "global", against;
  uint64_t seed = 1;

  template <class Field>
  void visit_fields(Field& field) {
    field(
        "shingle", shingle, Mark::decides,
        "what is compared: words:<n> in a row, chars:<n> for scripts without blanks, code:<n> identifiers and signs of "
        "source files");
    field("bands", bands, Mark::decides, "two documents meet when all values of one band agree");
    field("rows", rows, Mark::decides, "values of a band; bands x rows is at most 1024");
    field("min_similarity", min_similarity, Mark::decides, "share of equal values, or of equal shingles, of a copy");
    field("verify", verify, Mark::decides,
          "how those that meet are compared: signature, text (exactly, in groups of up to 100) or none");
    field("cluster", cluster, Mark::decides,
          "verified: who goes is similar to one that stays; connected: all but one of those that hang together go");
    field("keep", keep, Mark::decides, "which copy stays: first, longest, newest, score:<name>; none = not one");
    field("scope", scope, Mark::decides, "global, or source: copies in other sources do not count");
    field("against", against, Mark::place, "signatures that an older run kept: new documents lose to its documents");
    field("seed", seed, Mark::decides, "of the functions behind the signatures");
  }
};

class Decisions : public GroupDecisions {
 public:
  Decisions(const GroupPlace& place, uint32_t file, uint64_t owner, std::filesystem::path reference_folder, bool none)
      : folder_(place.folder),
        reference_folder_(std::move(reference_folder)),
        keep_none_(none),
        reader_(place.folder, file, owner),
        ids_(owner) {}

  bool look(Document& document, std::span<double> values, std::string& details) override {
    std::ranges::fill(values, 0.0);
    const std::optional<Decision> decision = reader_.find(record_++);
    if (!decision) return false;
    if (decision->kind == Decision::Kind::head) {
      if (keep_none_) {
        values[kCopied] = 1;
        details = fmt::format("\"copies\":{}", decision->copies);
        return false;
      }
      set_metadata(document, "copies", decision->copies);
      return true;
    }
    values[decision->kind == Decision::Kind::exact ? kExact : kNear] = 1;
    const std::filesystem::path& folder = decision->reference ? reference_folder_ : folder_;
    const std::string head = ids_.id_of(notes_stem(folder, decision->head_file), decision->head_record);
    details =
        fmt::format("\"{}\":{}{}", keep_none_ && !decision->reference ? "copy_of" : "kept_id",
                    Json(head).dump(-1, ' ', false, Json::error_handler_t::replace), similarity_member(*decision));
    return false;
  }

  bool goes() override {
    const std::optional<Decision> decision = reader_.find(record_++);
    return decision && (decision->kind != Decision::Kind::head || keep_none_);
  }

  enum Place { kExact, kNear, kCopied };  // of the rules

 private:
  std::filesystem::path folder_, reference_folder_;
  bool keep_none_;
  uint64_t record_ = 0;
  DecisionReader reader_;
  NotedIds ids_;
};

class DedupStep : public GroupStep {
 public:
  DedupStep(SettleOptions options, bool keep_none) : options_(std::move(options)), keep_none_(keep_none) {}

  std::vector<Rule> rules() const override {
    std::vector<Rule> rules = {{.name = "exact", .most = 0}, {.name = "near", .most = 0}};
    if (keep_none_) rules.push_back({.name = "copied", .most = 0});
    return rules;
  }
  std::vector<std::string> inputs() const override {
    if (options_.against.empty()) return {};
    return {fmt::format("against {:016x}", hash_of_notes(find_notes(options_.against), options_.notes))};
  }
  /// Its curve, and those of other shapes beside it.
  StepForecast forecast(double) const override {
    const SignatureShape own = options_.notes.shape;
    const auto line = [](const SignatureShape& shape) {
      return fmt::format("pairs found with {} bands of {} rows: {}", shape.bands, shape.rows, catch_curve(shape));
    };
    StepForecast forecast{.lines = {line(own)}};
    for (const SignatureShape& other : {SignatureShape{14, 8}, SignatureShape{28, 4}, SignatureShape{20, 13}})
      if (other.bands != own.bands || other.rows != own.rows) forecast.lines.push_back(line(other));
    return forecast;
  }
  std::unique_ptr<GroupNotes> note(const GroupPlace& place, uint32_t file) const override {
    return write_notes(place, file, options_.notes);
  }
  uint32_t num_parts(const GroupPlace& place) const override {
    const GroupParts parts = group_parts(place, noted(place), options_.notes.shape);
    return parts.exact + parts.bands;
  }
  void reduce(const GroupPlace& place, uint32_t part) const override {
    const NotedDocuments documents = noted(place);
    write_group_part(place, documents, group_parts(place, documents, options_.notes.shape), part,
                     options_.notes.owner());
  }
  uint64_t least_memory(uint64_t documents) const override { return least_settle_memory(documents); }
  void settle(const GroupPlace& place) const override { settle_groups(place, options_); }
  std::unique_ptr<GroupDecisions> decide(const GroupPlace& place, uint32_t file) const override {
    return std::make_unique<Decisions>(place, file, options_.notes.owner(),
                                       options_.against.empty() ? "" : find_notes(options_.against), keep_none_);
  }

 private:
  NotedDocuments noted(const GroupPlace& place) const { return {place, options_.notes, options_.against}; }

  SettleOptions options_;
  bool keep_none_;
};

/// The place of a value in the names that an option may have.
template <size_t Names>
size_t choice(const OptionTable& table, const char* key, const std::string& value,
              const std::array<std::string_view, Names>& names) {
  const auto found = std::ranges::find(names, value);
  if (found == names.end())
    throw UserError::recipe(table.where(key),
                            fmt::format("{}: got '{}', expected {}", key, value, fmt::join(names, ", ")));
  return static_cast<size_t>(found - names.begin());
}

std::shared_ptr<const Step> read_dedup(OptionTable& table) {
  DedupOptions given;
  table.read(given);
  SettleOptions options;
  const auto refuse = [&](const char* key, const std::string& message) {
    throw UserError::recipe(table.where(key), fmt::format("{}: {}", key, message));
  };
  if (!parse_shingle(given.shingle, options.notes.shingle))
    refuse("shingle",
           fmt::format("got '{}', expected words:<n>, chars:<n> or code:<n> with n from 1 to 1000", given.shingle));
  if (given.bands < 1 || given.bands > kMostValues)
    refuse("bands", fmt::format("got {}, expected 1 to {}", given.bands, kMostValues));
  if (given.rows < 1 || given.rows > kMostValues)
    refuse("rows", fmt::format("got {}, expected 1 to {}", given.rows, kMostValues));
  if (given.bands * given.rows > kMostValues)
    refuse("rows",
           fmt::format("got {} bands of {} values, expected at most {} values", given.bands, given.rows, kMostValues));
  if (!(given.min_similarity > 0 && given.min_similarity <= 1))
    refuse("min_similarity", fmt::format("got {}, expected a share above 0 and up to 1", given.min_similarity));
  options.verify = static_cast<Verify>(
      choice(table, "verify", given.verify, std::array<std::string_view, 3>{"none", "signature", "text"}));
  options.connected =
      choice(table, "cluster", given.cluster, std::array<std::string_view, 2>{"verified", "connected"}) == 1;
  options.notes.by_source =
      choice(table, "scope", given.scope, std::array<std::string_view, 2>{"global", "source"}) == 1;
  const bool by_score = given.keep.starts_with("score:") && given.keep.size() > 6;
  constexpr std::array<std::string_view, 4> kKeeps = {"first", "longest", "newest", "none"};
  if (!by_score && std::ranges::find(kKeeps, given.keep) == kKeeps.end())
    refuse("keep", fmt::format("got '{}', expected {}", given.keep, kExpectedKeep));
  options.min_similarity = given.min_similarity;
  options.against = given.against;
  options.notes.shape = {.bands = static_cast<int>(given.bands), .rows = static_cast<int>(given.rows)};
  options.notes.seed = given.seed;
  options.notes.keep = given.keep;
  options.notes.keep_shingles = options.verify == Verify::text;
  return std::make_shared<DedupStep>(std::move(options), given.keep == "none");
}

}  // namespace

extern const StepKind kDedupStep = {
    .kind = "dedup",
    .about = "leaves one of documents that are equal or nearly equal",
    .example = "coppice data dedup crawl/*.jsonl.zst -o deduplicated --memory 4GB",
    .options = step_options<DedupOptions>,
    .read = read_dedup,
};

}  // namespace coppice
