// Lines of files that the program itself has written, as much as they may repeat themselves.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

namespace coppice {

/// Calls `take` for every line of a zstd file, counted from 1; LineReader::kPadding readable bytes lie behind it.
/// UserError::bad_file for damage.
void for_each_own_line(const std::filesystem::path& path,
                       const std::function<void(std::string_view line, uint64_t number)>& take);

}  // namespace coppice
