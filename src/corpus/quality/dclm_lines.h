// Lines that are no text of their own, as DCLM's baseline takes them out (arXiv 2406.11794, after RefinedWeb).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace coppice {

/// A line (cut at line feeds; blank ones stay) goes when
///   more than half of its characters are capital letters,
///   all of them are digits,
///   it counts what readers did: `12 likes`, `1.2K views`,
///   it has fewer than two words,
///   it has at most ten words and holds `items in cart`, ends in `Read more...` or begins with `Sign-in`.
bool is_dclm_line_dropped(std::string_view line);

/// `values[0]`: the share of the words (between white space) that went with such lines; not defined without words.
/// `kept`: the lines that stay, without white space at the ends. False when that is the whole text: `kept` is not
/// written then.
bool measure_dclm_lines(std::string_view text, std::span<double> values, std::string& kept);

}  // namespace coppice
