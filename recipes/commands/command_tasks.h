// `coppice data tasks`: multiple-choice items out of the documents that a recipe holds out, so that no model of it was
// trained on a word of them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "recipes/language/recipe.h"
#include "src/text/documents.h"

namespace coppice {

/// Lines of a task file from the held-out documents of one domain, `count` at most. Documents in any order; the same
/// documents give the same lines.
///   continuation: about 100 characters of a document; which of four pieces of about 40 follows? The other three open
///   elsewhere, in three other documents. word:         the last word of a sentence among four that occur about as
///   often in the domain, of one length where there are such
std::vector<std::string> continuation_items(const std::string& domain, std::vector<Document> documents, size_t count);
std::vector<std::string> word_items(const std::string& domain, std::vector<Document> documents, size_t count);

/// The command: writes <output>/continuation.jsonl and <output>/word.jsonl, 200 items each where the text holds as
/// many, spread over the domains. UserError::recipe when the held-out text is too little for a single item.
void run_data_tasks(const Recipe& recipe, const std::filesystem::path& output);

}  // namespace coppice
