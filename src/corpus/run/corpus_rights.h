// Whose documents lie at a path inside a corpus.
#pragma once

#include <filesystem>
#include <vector>

#include "src/tokens/source_rights.h"

namespace coppice {

inline constexpr const char* kCorpusSourcesFormat = "coppice.corpus_sources";  // of sources.json

/// Of the folder of a complete corpus, of its documents/ and of domains/: every source that holds documents there; of
/// documents/<source> and what lies in it, that source; of any other folder with a sources.json of that format, and
/// what lies in it (long-qa), those that it names; of a path in none of these, none. UserError::bad_file for a
/// sources.json that is damaged.
std::vector<SourceRights> corpus_rights(const std::filesystem::path& path);

}  // namespace coppice
