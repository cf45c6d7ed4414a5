// From the recipe's corpus to a tokenizer and token shards in the run folder: data/tokenizer, data/tokens/<domain>,
// data/heldout/<domain>, data/tuning/<domain>.
#pragma once

#include <filesystem>

#include "recipes/folder/run_folder.h"
#include "recipes/language/recipe.h"
#include "src/data/prepared_data.h"
#include "src/text/documents.h"
#include "src/text/survey_corpus.h"

namespace coppice {

/// How the documents of a domain are read.
CorpusOptions corpus_options(const Recipe& recipe, const DomainOptions& domain);
/// How all of the corpus is looked at before any work; `with_sample`: for a tokenizer to be trained on.
SurveyOptions survey_options(const Recipe& recipe, bool with_sample);

/// Identity of the data a recipe asks for. Reads and hashes every corpus file; UserError::bad_file for a missing or
/// empty one.
Json data_identity(const Recipe& recipe);
/// Builds what is missing and opens everything verified. Shards that are whole are kept, so a kill costs one shard.
/// Throws Stopped on a stop request.
PreparedData prepare_data(const Recipe& recipe, RunFolder& run, const Json& identity);
/// Opens what an earlier run prepared.
PreparedData open_data(const std::filesystem::path& run_root);

}  // namespace coppice
