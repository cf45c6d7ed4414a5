#include "src/corpus/report/kept_documents.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/base/errors.h"
#include "src/corpus/report/own_lines.h"
#include "src/text/document_record.h"

namespace coppice {

void read_kept(const CompleteCorpus& corpus, const SourceFile& file, const std::function<void(Document&&)>& take) {
  const std::filesystem::path path = corpus.documents(file);
  RecordParser parser("text", /*keep_fields=*/true);
  for_each_own_line(path, [&](std::string_view line, uint64_t number) {
    try {
      take(parser.parse(line));
    } catch (const BadRecord& error) {
      throw UserError::bad_file(fmt::format("{}:{}", path.native(), number), error.what());
    }
  });
}

std::vector<SourceFile> sampled_files(const CompleteCorpus& corpus, size_t most) {
  std::vector<SourceFile> files = corpus.files;
  if (files.size() <= most) return files;
  std::ranges::sort(files, {}, [](const SourceFile& file) { return document_hash(file.name); });
  files.resize(most);
  std::ranges::sort(files, {}, &SourceFile::name);
  return files;
}

}  // namespace coppice
