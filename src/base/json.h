// JSON as coppice writes and trusts it: strict reading (UTF-8, no duplicate keys, depth 64), canonical fingerprints,
// sealed manifests.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace coppice {

using Json = nlohmann::json;

/// Parses one JSON value; UserError::bad_file(path, ...) on bad UTF-8, duplicate keys, depth above 64 or trailing text.
Json parse_json(std::string_view text, std::string_view path);
Json read_json(const std::filesystem::path& path, uint64_t max_bytes = uint64_t{64} << 20);

/// SHA-256 of the canonical form: keys sorted, no spaces, numbers that are not integers as strings.
std::string fingerprint(const Json& value);

/// One line whose last member is "sha256", the digest of every byte before `,"sha256":"`; ends with `"}\n`.
std::string seal(const Json& object);
/// Reads a sealed file back. UserError::bad_file when the seal does not hold, `format` differs or `version` is newer
/// (both printed).
Json read_sealed(const std::filesystem::path& path, std::string_view format, int version);

/// Field access that names path and key: present, an unsigned integer / string / ...
uint64_t unsigned_at(const Json& object, const char* key, std::string_view path);
std::string string_at(const Json& object, const char* key, std::string_view path);
double number_at(const Json& object, const char* key, std::string_view path);
const Json& array_at(const Json& object, const char* key, std::string_view path);
const Json& object_at(const Json& object, const char* key, std::string_view path);

}  // namespace coppice
