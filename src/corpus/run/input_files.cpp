#include "src/corpus/run/input_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/base/log.h"
#include "src/corpus/report/complete_corpus.h"
#include "src/corpus/run/raw_pages.h"

namespace coppice {
namespace {

/// Of a source of a complete corpus; empty for one that it does not know.
std::vector<SourceFile> recorded_files(const CompleteCorpus& corpus, const std::string& source) {
  std::vector<SourceFile> files;
  for (const SourceFile& file : corpus.files) {
    if (corpus.sources[file.source].options.name != source) continue;
    files.push_back(file);
    files.back().path.clear();
  }
  return files;
}

}  // namespace

std::vector<SourceFile> list_input_files(const CorpusSettings& settings, const CorpusRequest& request) {
  check_output_apart(settings.sources, request.out);
  if (!std::filesystem::exists(request.out / "report.json")) {
    std::vector<SourceFile> files = request.list(settings.sources);
    check_raw_pages(settings, files);
    return files;
  }
  const CompleteCorpus corpus = open_complete_corpus(request.out);
  std::vector<SourceFile> files;
  for (uint32_t number = 0; number < settings.sources.size(); ++number) {
    const SourceOptions& source = settings.sources[number];
    std::vector<SourceFile> of_source;
    try {
      of_source = request.list({source});
    } catch (const UserError&) {
      of_source = recorded_files(corpus, source.name);
      if (of_source.empty()) throw;
      log_warning(
          fmt::format("source '{}': nothing is left at {}; it counts as the {} files that this corpus was made of",
                      source.name, source.path, of_source.size()));
    }
    for (SourceFile& file : of_source) {
      file.source = number;
      files.push_back(std::move(file));
    }
  }
  std::ranges::sort(files, {}, &SourceFile::name);
  return files;
}

}  // namespace coppice
