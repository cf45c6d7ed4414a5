#include "src/corpus/run/lost_markup.h"

#include <fmt/format.h>

#include <algorithm>

namespace coppice {

std::vector<std::string> lost_markup_warnings(const CorpusSettings& settings, const std::vector<SourceFile>& files) {
  std::vector<std::string> warnings;
  for (uint32_t number = 0; number < settings.sources.size(); ++number) {
    const SourceOptions& source = settings.sources[number];
    const auto is_wet = [&](const SourceFile& file) { return file.source == number && file.kind == "wet"; };
    if (std::ranges::none_of(files, is_wet)) continue;
    std::string names;
    size_t count = 0;
    for (const CorpusStep& step : settings.steps)
      if (step.step->reads_markup() && step.looks_at(source))
        names += fmt::format("{}'{}'", count++ > 0 ? ", " : "", step.name);
    if (count > 0)
      warnings.push_back(fmt::format(
          "source '{}' holds texts without markup (WET): the step{} {} look{} for what only pages have, and "
          "find{} none of it there; WARC files hold pages",
          source.name, count > 1 ? "s" : "", names, count > 1 ? "" : "s", count > 1 ? "" : "s"));
  }
  return warnings;
}

}  // namespace coppice
