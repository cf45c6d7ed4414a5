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

}  // namespace

Json corpus_record(const CorpusSurvey& survey, size_t domain, const RepeatedTexts& repeated) {
  const CorpusReport& report = survey.reports[domain];
  Json bad = Json::array(), repeats = Json::array();
  for (const BadRecords& file : report.bad)
    bad.push_back({{"file", file.file}, {"bad", file.bad}, {"records", file.records}, {"first", file.first}});
  const std::vector<uint64_t> counts = repeated.counts();
  for (size_t other = 0; other < counts.size(); ++other)
    if (counts[other] > 0)
      repeats.push_back(
          {{"heldout_of", survey.domains[other]}, {"texts", counts[other]}, {"of", survey.held_texts[other].size()}});
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
    for (const Json& repeat : array_at(record, "repeats", where)) {
      const std::string heldout = string_at(repeat, "heldout_of", where);
      const uint64_t texts = unsigned_at(repeat, "texts", where), of = unsigned_at(repeat, "of", where);
      notes.push_back({.about = fmt::format("domain '{}'", heldout),
                       .text = fmt::format("{} of {} held-out texts ({:.2f}%) stand word for word in {}: their loss "
                                           "shows what was learned by heart; take repeated "
                                           "texts out of the corpus",
                                           texts, of, percent(texts, of),
                                           heldout == domain ? "its training part too"
                                                             : fmt::format("the training part of '{}'", domain)),
                       .spoils = true});
    }
  }
  return notes;
}

}  // namespace coppice
