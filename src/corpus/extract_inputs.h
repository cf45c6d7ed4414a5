// Which files `coppice data extract` reads.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "src/corpus/sources/source.h"

namespace coppice {

/// Every file of text, HTML, source code or dictionary entries below the inputs, named <source>/<path inside the
/// input>, sorted by name, or by the names' sample_hash. Links are not followed: documentation packages link pages to
/// each other and to places outside. UserError::recipe for two files of one name, UserError::bad_file for an input that
/// is missing or of another kind.
std::vector<SourceFile> list_extractable(const std::vector<std::filesystem::path>& inputs, const std::string& source,
                                         bool by_hash);

/// By the sample_hash of a name or id, then by itself.
bool comes_first_by_hash(const std::string& a, const std::string& b);

}  // namespace coppice
