#include "src/corpus/run/raw_pages.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {
namespace {

void check_source(const CorpusSettings& settings, const SourceOptions& source, const std::string& page) {
  for (const CorpusStep& step : settings.steps) {
    if (!step.looks_at(source) || step.step->pages() == Step::Pages::takes) continue;
    if (step.step->pages() == Step::Pages::turns_to_text) return;
    throw UserError::recipe(step.where, fmt::format("step '{}' got the pages of source '{}' ({} is one of its files), "
                                                    "expected texts; add a [[data.step]] with kind = \"extract\" in "
                                                    "front of it",
                                                    step.name, source.name, page));
  }
  throw UserError::recipe(source.where, fmt::format("source '{}' holds pages ({} is one of its files), and no step "
                                                    "turns them into texts; add a [[data.step]] with kind = "
                                                    "\"extract\"",
                                                    source.name, page));
}

}  // namespace

void check_raw_pages(const CorpusSettings& settings, const std::vector<SourceFile>& files) {
  for (uint32_t number = 0; number < settings.sources.size(); ++number) {
    const auto holds_pages = [&](const SourceFile& file) {
      return file.source == number && (file.kind == "warc" || file.kind == "html");
    };
    const auto page = std::ranges::find_if(files, holds_pages);
    if (page != files.end()) check_source(settings, settings.sources[number], printable(page->name));
  }
}

}  // namespace coppice
