// What a corpus is, as one hash.
#pragma once

#include <filesystem>
#include <string>

namespace coppice {

/// SHA-256 of a file, or of the sorted (relative path, hash) list of the files that are read below a folder.
/// UserError::bad_file when there is nothing. Throws Stopped on a stop request.
std::string corpus_sha256(const std::filesystem::path& path);

}  // namespace coppice
