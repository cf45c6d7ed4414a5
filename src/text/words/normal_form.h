// The form in which texts are compared: shingles of near duplicates, n-grams of benchmarks, features of classifiers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice {

/// Lower case; a number (digits with at most one of `. , ،` and more digits) is `0`; punctuation is a blank; runs of
/// white space are one blank, none at the ends; NFD without marks (category Mn). `text` is valid UTF-8; `out` is
/// overwritten. As datatrove's text normalisation, which the fixtures of near duplicates were made with.
void normal_form(std::string_view text, std::string& out);
/// What lies between its blanks; views into `normal`.
void split_normal_form(std::string_view normal, std::vector<std::string_view>& words);

}  // namespace coppice
