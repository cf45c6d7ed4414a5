// Files that nobody wrote, by their names and by what they say of themselves.
#pragma once

#include <string_view>

namespace coppice {

/// package-lock.json, Cargo.lock, go.sum and kin.
bool is_lock_file(std::string_view path);
/// Below vendor/, node_modules/, third_party/ and kin: copies of others' code.
bool is_vendored(std::string_view path);
/// *.min.js, *_pb2.py, *.designer.cs and kin, or one of the first five lines says that the file is generated.
bool is_generated(std::string_view path, std::string_view text);
/// `<?xml` in the first 100 bytes, whatever the name says.
bool is_xml(std::string_view text);

}  // namespace coppice
