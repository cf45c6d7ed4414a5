// Pages of documentation: all of the body is the article, but for what the tools put around it on every page.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace coppice {

/// Body text of a page: scripts, styles and navigation dropped, blocks separated by newlines, title first. Bytes that
/// are no UTF-8 become U+FFFD. UserError::bad_file naming `path` for a page of more than 64 MB, with more than ten
/// million elements, with thousands of them open at once, or that takes a minute.
std::string html_to_text(std::string_view html, const std::filesystem::path& path = "HTML");

}  // namespace coppice
