#include "src/corpus/code/languages.h"

#include <algorithm>
#include <cctype>
#include <string>

namespace coppice {
namespace {

constexpr CommentSyntax kOfC = {.line = "//", .open = "/*", .close = "*/", .quotes = "\"'"};
constexpr CommentSyntax kOfJavaScript = {
    .line = "//", .open = "/*", .close = "*/", .quotes = "\"'", .long_quotes = {"`"}};
constexpr CommentSyntax kOfJava = {
    .line = "//", .open = "/*", .close = "*/", .quotes = "\"'", .long_quotes = {"\"\"\""}};
constexpr CommentSyntax kOfSwift = {
    .line = "//", .open = "/*", .close = "*/", .nested = true, .quotes = "\"", .long_quotes = {"\"\"\""}};
constexpr CommentSyntax kOfRust = {.line = "//", .open = "/*", .close = "*/", .nested = true, .quotes = "\""};
constexpr CommentSyntax kOfGo = {
    .line = "//", .open = "/*", .close = "*/", .quotes = "\"'", .long_quotes = {"`"}, .raw_quotes = "`"};
constexpr CommentSyntax kOfPython = {
    .line = "#", .docstrings = true, .quotes = "\"'", .long_quotes = {"\"\"\"", "'''"}};
constexpr CommentSyntax kOfRuby = {
    .line = "#", .open = "=begin", .close = "=end", .own_line = true, .blank_before_line = true, .quotes = "\"'`"};
constexpr CommentSyntax kOfShell = {
    .line = "#", .blank_before_line = true, .long_quotes = {"\"", "'"}, .raw_quotes = "'"};

constexpr ProgrammingLanguage kLanguages[] = {
    {"Swift", " .swift ", " swift ", kOfSwift},
    {"Python", " .py .pyi ", " python python2 python3 pypy pypy3 ", kOfPython},
    {"C", " .c ", "", kOfC},
    {"Objective-C", "", "", kOfC},  // .m and .h, by what is in them
    {"C++", " .cc .cpp .cxx .hpp .hh .cu ", "", kOfC},
    {"JavaScript", " .js .mjs .cjs .jsx ", " node nodejs ", kOfJavaScript},
    {"Java", " .java ", "", kOfJava},
    {"Go", " .go ", "", kOfGo},
    {"TypeScript", " .ts .tsx ", " ts-node deno ", kOfJavaScript},
    {"C#", " .cs ", "", kOfJava},
    {"Rust", " .rs ", "", kOfRust},
    {"Ruby", " .rb ", " ruby ", kOfRuby},
    {"Kotlin", " .kt .kts ", "", kOfSwift},
    {"Shell", " .sh .bash ", " sh bash dash ksh zsh ash ", kOfShell},
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

bool has_word(std::string_view words, std::string_view word) {
  return !word.empty() && words.find(" " + std::string(word) + " ") != std::string_view::npos;
}

bool holds_any(std::string_view text, std::initializer_list<std::string_view> signs) {
  return std::ranges::any_of(signs, [&](std::string_view sign) { return text.find(sign) != std::string_view::npos; });
}

/// Whether one of the words stands there as a word of its own.
bool holds_word(std::string_view text, std::initializer_list<std::string_view> words) {
  const auto is_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  for (const std::string_view word : words)
    for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1))
      if ((at == 0 || !is_name(text[at - 1])) && (at + word.size() == text.size() || !is_name(text[at + word.size()])))
        return true;
  return false;
}

/// `#!/usr/bin/env -S python3 -u` is run by python3, `#!/bin/bash` by bash; versions behind a dot do not count.
std::string_view interpreter(std::string_view text) {
  if (!text.starts_with("#!")) return {};
  std::string_view line = text.substr(2, std::min<size_t>(text.find('\n'), 256) - 2);
  while (!line.empty()) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t\r"), line.size()));
    std::string_view word = line.substr(0, line.find_first_of(" \t\r"));
    line.remove_prefix(word.size());
    word = word.substr(word.rfind('/') + 1);
    if (word != "env" && !word.starts_with('-')) return word.substr(0, word.find('.'));
  }
  return {};
}

}  // namespace

std::span<const ProgrammingLanguage> languages() { return kLanguages; }

const ProgrammingLanguage* find_language(std::string_view name) {
  const std::string wanted = lower(name);
  const auto found =
      std::ranges::find_if(kLanguages, [&](const ProgrammingLanguage& row) { return lower(row.name) == wanted; });
  return found == std::end(kLanguages) ? nullptr : found;
}

bool has_source_ending(std::string_view path) {
  const std::string name = lower(path.substr(path.rfind('/') + 1));
  const std::string_view ending = std::string_view(name).substr(std::min(name.rfind('.'), name.size()));
  return has_word(" .h .m .ipynb ", ending) ||
         std::ranges::any_of(kLanguages, [&](const ProgrammingLanguage& row) { return has_word(row.endings, ending); });
}

const ProgrammingLanguage* language_of(std::string_view path, std::string_view text) {
  const std::string name = lower(path.substr(path.rfind('/') + 1));
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) {
    const std::string_view program = interpreter(text);
    for (const ProgrammingLanguage& row : kLanguages)
      if (has_word(row.interpreters, program)) return &row;
    return nullptr;
  }
  const std::string_view ending = std::string_view(name).substr(dot);
  if (ending == ".h") {
    if (holds_word(text, {"@interface", "@property", "@end"})) return find_language("Objective-C");
    return find_language(
        holds_word(text, {"class", "template", "namespace"}) || holds_any(text, {"std::", "public:"}) ? "C++" : "C");
  }
  if (ending == ".m")  // or MATLAB, Octave, Mathematica
    return holds_word(text, {"@interface", "@implementation", "#import"}) ? find_language("Objective-C") : nullptr;
  if (ending == ".ts" && holds_any(text, {"<?xml", "<TS"})) return nullptr;  // translations of Qt
  for (const ProgrammingLanguage& row : kLanguages)
    if (has_word(row.endings, ending)) return &row;
  return nullptr;
}

}  // namespace coppice
