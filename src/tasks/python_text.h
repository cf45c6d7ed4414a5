// What Python's str does where lm-evaluation-harness leans on it. Text is UTF-8; white space is what str.isspace()
// says.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// str.lstrip(), str.rstrip(), str.strip().
std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);
std::string_view strip(std::string_view text);
/// len(re.split(r"\s+", text)): runs of white space, plus one.
size_t count_words(std::string_view text);
/// list(text): its code points.
std::vector<std::string> code_points(std::string_view text);
/// text.replace(from, to), from not empty.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);
/// text.split(separator), separator not empty.
std::vector<std::string> split_text(std::string_view text, std::string_view separator);
/// text.isdigit(), ASCII digits alone.
bool is_digits(std::string_view text);

}  // namespace coppice
