#include "src/corpus/maths/marks.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

#include "src/base/errors.h"

namespace coppice {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The character at i; its bytes.
size_t read_character(std::string_view text, size_t i, utf8proc_int32_t& code_point) {
  const auto read = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + i),
                                     static_cast<utf8proc_ssize_t>(text.size() - i), &code_point);
  return read > 0 ? static_cast<size_t>(read) : 1;
}

}  // namespace

std::vector<std::string> list_entries(std::string_view text) {
  std::vector<std::string> entries;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) entries.emplace_back(line);
    begin = end + 1;
  }
  return entries;
}

StringFinder::StringFinder(const std::vector<std::string>& strings, const std::string& where)
    : num_strings_(static_cast<uint32_t>(strings.size())) {
  size_t bytes = 0;
  for (const std::string& string : strings) {
    bytes += string.size();
    for (const char c : string)
      if (uint16_t& of_byte = classes_[static_cast<unsigned char>(c)]; of_byte == 0) of_byte = num_classes_++;
  }
  if (strings.empty() || bytes > UINT16_MAX)
    throw UserError::bad_file(
        where, fmt::format("got {} strings of {} bytes together, expected 1 to 65535 bytes", strings.size(), bytes));

  const auto cell = [&](size_t state, size_t of_byte) -> uint16_t& { return next_[state * num_classes_ + of_byte]; };
  const auto add_state = [&] {
    states_.emplace_back();
    next_.resize(states_.size() * num_classes_, 0);
    return static_cast<uint16_t>(states_.size() - 1);
  };
  add_state();
  for (uint32_t i = 0; i < strings.size(); ++i) {
    uint16_t state = 0;
    for (const char c : strings[i]) {
      const uint16_t of_byte = classes_[static_cast<unsigned char>(c)];
      if (cell(state, of_byte) == 0) {
        const uint16_t made = add_state();
        cell(state, of_byte) = made;
      }
      state = cell(state, of_byte);
    }
    if (states_[state].string == kNone) states_[state].string = i;
  }

  // Breadth first: a state falls back to that of its longest proper end, whose row is whole by then.
  std::vector<uint16_t> fall(states_.size(), 0), queue{0};
  for (size_t at = 0; at < queue.size(); ++at) {
    const uint16_t state = queue[at];
    states_[state].shorter = states_[fall[state]].string != kNone ? fall[state] : states_[fall[state]].shorter;
    for (uint16_t of_byte = 1; of_byte < num_classes_; ++of_byte) {
      uint16_t& next = cell(state, of_byte);
      const uint16_t other = state == 0 ? 0 : cell(fall[state], of_byte);
      if (next == 0) {
        next = other;
      } else {
        fall[next] = other;
        queue.push_back(next);
      }
    }
  }
}

std::vector<uint32_t> StringFinder::find(std::string_view text) const {
  std::vector<bool> seen(num_strings_, false);
  size_t state = 0;
  for (const char c : text) {
    state = next_[state * num_classes_ + classes_[static_cast<unsigned char>(c)]];
    if (states_[state].string == kNone && states_[state].shorter == 0) continue;
    // What is seen has had its shorter ones seen before.
    for (size_t i = state; i != 0 && (states_[i].string == kNone || !seen[states_[i].string]); i = states_[i].shorter)
      if (states_[i].string != kNone) seen[states_[i].string] = true;
  }
  std::vector<uint32_t> found;
  for (uint32_t i = 0; i < num_strings_; ++i)
    if (seen[i]) found.push_back(i);
  return found;
}

SymbolCounter::SymbolCounter(const std::vector<std::string>& symbols, const std::string& where) : signs_(0x110000) {
  if (symbols.empty()) throw UserError::bad_file(where, "got no symbol, expected one a line: \\name or a character");
  for (const std::string& symbol : symbols) {
    const std::string_view name = std::string_view(symbol).substr(symbol.starts_with('\\') ? 1 : 0);
    utf8proc_int32_t code_point = -1;
    if (name.size() < symbol.size() && !name.empty() && std::ranges::all_of(name, is_letter)) {
      names_.emplace(name);
      longest_name_ = std::max(longest_name_, name.size());
    } else if (read_character(symbol, 0, code_point) == symbol.size() && code_point >= 0x80) {
      signs_[static_cast<size_t>(code_point)] = true;
    } else {
      throw UserError::bad_file(
          where, fmt::format("got '{}', expected \\name or a single character that is not ASCII", printable(symbol)));
    }
  }
}

uint64_t SymbolCounter::count(std::string_view text) const {
  uint64_t found = 0;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\\') {
      size_t end = ++i;
      while (end < text.size() && is_letter(text[end])) ++end;
      if (end - i <= longest_name_ && names_.contains(text.substr(i, end - i))) ++found;
      i = end;
    } else if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
    } else {
      utf8proc_int32_t code_point = -1;
      i += read_character(text, i, code_point);
      if (code_point >= 0 && signs_[static_cast<size_t>(code_point)]) ++found;
    }
  }
  return found;
}

}  // namespace coppice
