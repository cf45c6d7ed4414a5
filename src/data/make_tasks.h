// Multiple-choice items (tasks.h) out of the documents that are held out, so that no model was trained on a word of
// them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "src/text/documents.h"
#include "src/text/survey_corpus.h"

namespace coppice {

/// Lines of a task file from the held-out documents of one domain, `count` at most. Documents in any order; the same
/// documents give the same lines.
///   continuation: about 100 characters of a document; which of four pieces of about 40 follows? The other three open
///   elsewhere, in three other documents. word:         the last word of a sentence among four that occur about as
///   often in the domain, of one length where there are such
std::vector<std::string> continuation_items(const std::string& domain, std::vector<Document> documents, size_t count);
std::vector<std::string> word_items(const std::string& domain, std::vector<Document> documents, size_t count);

struct MadeTask {
  std::filesystem::path file;
  size_t items = 0;
};
/// Writes <output>/continuation.jsonl and <output>/word.jsonl, 200 items each where the held-out text holds as many,
/// spread over the domains. UserError::recipe when it is too little for a single item.
std::vector<MadeTask> make_tasks(const std::vector<CorpusDomain>& domains, double heldout_share,
                                 const std::filesystem::path& output);

}  // namespace coppice
