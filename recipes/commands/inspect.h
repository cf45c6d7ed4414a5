// coppice inspect: what a file or folder of coppice holds, and whether it is whole.
#pragma once

#include <filesystem>
#include <string>

namespace coppice {

/// Text for people. UserError::bad_file (exit 3) when it is damaged or nothing coppice knows.
std::string inspect(const std::filesystem::path& path);

}  // namespace coppice
