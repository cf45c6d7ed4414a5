// Programming languages: which one a file is in, and what its comments look like.
#pragma once

#include <array>
#include <span>
#include <string_view>

namespace coppice {

/// Where comments and strings stand. Strings are told from comments, not checked: one that is not closed ends at its
/// line's end, or at the text's where it may hold lines.
struct CommentSyntax {
  std::string_view line;           // opens a comment up to the end of the line
  std::string_view open, close;    // around a comment
  bool nested = false;             // such comments lie in one another
  bool own_line = false;           // `open` and `close` begin lines
  bool blank_before_line = false;  // `line` opens a comment only behind a blank
  bool docstrings = false;         // a long string that begins a line is a comment
  std::string_view quotes;         // around a string within a line; a backslash takes the next sign with it
  std::array<std::string_view, 3> long_quotes = {};  // around a string that may hold lines
  std::string_view raw_quotes;                       // those of either in which a backslash is a sign like others
};

struct ProgrammingLanguage {
  std::string_view name;
  std::string_view endings;       // of file names, in lower case: " .cc .cpp "
  std::string_view interpreters;  // behind #!: " sh bash "
  CommentSyntax comments;
};

/// The rows.
std::span<const ProgrammingLanguage> languages();
/// By its name, in any case; nullptr for another.
const ProgrammingLanguage* find_language(std::string_view name);

/// The language of a file, by the ending of its path (any case), for a name without ending by the first line of `text`,
/// and where an ending has several meanings by the text; nullptr for every other file.
const ProgrammingLanguage* language_of(std::string_view path, std::string_view text);
/// Whether a file is called as those of one of the languages are, headers and notebooks among them, in any case.
bool has_source_ending(std::string_view path);

}  // namespace coppice
