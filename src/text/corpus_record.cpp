#include "src/text/corpus_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/text/documents.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "coppice.corpus";

double percent(uint64_t part, uint64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<uint64_t>(whole, 1));
}

/// One entry for each domain of which some `texts` came by again; `key` names that domain.
void add_repeats(Json& repeats, const char* key, const CorpusSurvey& survey,
                 const std::vector<std::vector<uint64_t>>& texts, const RepeatedTexts& repeated) {
  const std::vector<uint64_t> counts = repeated.counts();
  for (size_t other = 0; other < counts.size(); ++other)
    if (counts[other] > 0)
      repeats.push_back({{key, survey.domains[other]}, {"texts", counts[other]}, {"of", texts[other].size()}});
}

/// What an entry of `repeats` means for the report.
CorpusNote note_of_repeat(const Json& repeat, const std::string& domain, const std::string& where) {
  const bool is_tuning = repeat.contains("tuning_of");
  const std::string of_domain = string_at(repeat, is_tuning ? "tuning_of" : "heldout_of", where);
  const uint64_t texts = unsigned_at(repeat, "texts", where), of = unsigned_at(repeat, "of", where);
  return {.about = fmt::format("domain '{}'", of_domain),
          .text = fmt::format(
              "{} of {} {} texts ({:.2f}%) stand word for word in {}: {}; take repeated texts out of "
              "the corpus",
              texts, of, is_tuning ? "tuning" : "held-out", percent(texts, of),
              of_domain == domain ? "its training part too" : fmt::format("the training part of '{}'", domain),
              is_tuning ? "what is chosen by them favours what learns by heart"
                        : "their loss shows what was learned by heart"),
          .spoils = !is_tuning};
}

}  // namespace

Json corpus_record(const CorpusSurvey& survey, size_t domain, const RepeatedTexts& held, const RepeatedTexts& tuning) {
  const CorpusReport& report = survey.reports[domain];
  Json bad = Json::array(), repeats = Json::array();
  for (const BadRecords& file : report.bad)
    bad.push_back({{"file", file.file}, {"bad", file.bad}, {"records", file.records}, {"first", file.first}});
  add_repeats(repeats, "heldout_of", survey, survey.held_texts, held);
  add_repeats(repeats, "tuning_of", survey, survey.tuning_texts, tuning);
  return {{"format", kFormat},
          {"version", 1},
          {"domain", survey.domains[domain]},
          {"documents", report.documents},
          {"empty", report.empty},
          {"bad_records", report.num_bad()},
          {"bad", bad},
          {"repeats", repeats}};
}

std::vector<CorpusNote> corpus_notes(const fs::path& data_folder) {
  std::vector<CorpusNote> notes;
  std::vector<fs::path> files;
  if (!fs::exists(data_folder / "corpus")) return notes;
  for (const auto& entry : fs::directory_iterator(data_folder / "corpus"))
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    const std::string where = file.string();
    const Json record = read_sealed(file, kFormat, 1);
    const std::string domain = string_at(record, "domain", where);
    if (const uint64_t bad = unsigned_at(record, "bad_records", where))
      notes.push_back({.about = fmt::format("domain '{}'", domain),
                       .text = fmt::format("{} records were no documents and were left out, {} documents were read",
                                           bad, unsigned_at(record, "documents", where))});
    for (const Json& repeat : array_at(record, "repeats", where))
      notes.push_back(note_of_repeat(repeat, domain, where));
  }
  return notes;
}

}  // namespace coppice
