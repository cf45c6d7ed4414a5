// Text of HTML pages.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace coppice {

/// Body text of an HTML page through libgumbo: scripts, styles, navigation dropped, blocks separated by newlines, title
/// first; depth limited. UserError::bad_file naming `path` for a page of more than 64 MB or with thousands of elements
/// open at once.
std::string html_to_text(std::string_view html, const std::filesystem::path& path = "HTML");

}  // namespace coppice
