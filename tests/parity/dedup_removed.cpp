// parity_dedup OPTIONS.toml MEMORY_BYTES FOLDER WORK: deduplicates the documents below a folder, each file by itself as
// a corpus does it, and prints a line for each that goes: its id, the rule and the details, between tabs.
#include <fmt/format.h>

#include <cstdlib>
#include <limits>

#include "src/base/errors.h"
#include "src/cli/options.h"
#include "src/corpus/step.h"

using namespace coppice;

namespace {

void run(char** argv) {
  OptionTable table = RecipeSource::load(argv[1], {}, {}).root();
  const StepKind* kind = nullptr;
  for (const StepKind* row : step_kinds())
    if (std::string(row->kind) == "dedup") kind = row;
  const std::shared_ptr<const Step> owned = kind->read(table);
  const auto& step = dynamic_cast<const GroupStep&>(*owned);
  const std::filesystem::path folder = argv[3];
  GroupPlace place{.folder = argv[4],
                   .files = corpus_files(folder),
                   .source_priorities = {1},
                   .source_names = {"corpus"},
                   .memory_bytes = static_cast<uint64_t>(std::atoll(argv[2]))};
  place.sources.resize(place.files.size());
  for (uint32_t file = 0; file < place.files.size(); ++file) {
    const std::unique_ptr<GroupNotes> notes = step.note(place, file);
    for_each_document(folder / place.files[file], [&](Document&& document) { notes->add(document); });
    notes->commit();
  }
  const uint32_t parts = step.num_parts(place);
  for (uint32_t part = 0; part < parts; ++part) step.reduce(place, part);
  step.settle(place);
  const std::vector<Rule> rules = step.rules();
  for (uint32_t file = 0; file < place.files.size(); ++file) {
    const std::unique_ptr<GroupDecisions> decisions = step.decide(place, file);
    for_each_document(folder / place.files[file], [&](Document&& document) {
      std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
      std::string details;
      decisions->look(document, values, details);
      for (size_t i = 0; i < rules.size(); ++i)
        if (rules[i].drops(values[i])) fmt::print("{}\t{}\t{}\n", document.id, rules[i].name, details);
    });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  try {
    run(argv);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
