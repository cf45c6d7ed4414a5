// The folder of a corpus that `coppice data run` has made, recognised where it is given as an input.
#pragma once

#include <filesystem>

namespace coppice {

inline constexpr const char* kCorpusReportFormat = "coppice.corpus";   // of report.json, which a complete one has
inline constexpr const char* kCorpusRunFormat = "coppice.corpus_run";  // of work/corpus.json

/// Where the documents of a folder lie: of a corpus in its documents/, for what was removed, statistics and sidecars
/// lie beside them; of any other in the folder itself. UserError::bad_file for a corpus that is not complete, and for
/// a damaged report.json of one.
std::filesystem::path documents_folder(const std::filesystem::path& folder);

}  // namespace coppice
