#include "src/corpus/report/kept_documents.h"

#include <algorithm>

namespace coppice {

void read_kept(const CompleteCorpus& corpus, const SourceFile& file, const std::function<void(Document&&)>& take) {
  const SourceFile documents{.name = file.name, .path = corpus.documents(file), .kind = "jsonl", .source = file.source};
  SourceOptions options;  // the corpus writes "text", whatever its source called it
  options.name = corpus.sources.at(file.source).options.name;
  read_source_file(documents, options, {.max_bad_share = 0, .max_document_bytes = 8 * kMaxDocumentBytes}, take);
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
