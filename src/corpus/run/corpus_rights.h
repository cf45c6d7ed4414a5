// Whose documents lie at a path inside a corpus.
#pragma once

#include <filesystem>
#include <vector>

#include "src/tokens/source_rights.h"

namespace coppice {

/// Of the folder of a complete corpus, of its documents/ and of domains/: every source that holds documents there; of
/// documents/<source> and what lies in it, that source; of a path in no corpus, none. UserError::bad_file for a
/// sources.json that is damaged.
std::vector<SourceRights> corpus_rights(const std::filesystem::path& path);

}  // namespace coppice
