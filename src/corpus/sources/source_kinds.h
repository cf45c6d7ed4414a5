// Kinds of sources and the names of their files.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "src/text/byte_source.h"

namespace coppice {

inline constexpr const char* kSourceKinds = "warc, wet, jsonl, parquet, html, text or code";

bool is_source_kind(std::string_view kind);
/// By the ending, capitals are the same and .gz or .zst may stand behind it; empty: none. Never "code".
std::string_view source_kind_of(const std::filesystem::path& path);
/// The name without its ending, that of a packing included: `a/part-0` of `a/part-0.warc.gz`; as it is where the ending
/// says no kind.
std::string without_ending(const std::string& name);
/// By the last ending.
ByteSource::Coding coding_of(const std::filesystem::path& path);

}  // namespace coppice
