#include "src/corpus/code/measures.h"

#include <utf8proc.h>

#include <algorithm>
#include <cctype>
#include <cstdint>

namespace coppice {
namespace {

constexpr size_t kLongLine = 300, kBase64Run = 256;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_ascii_alphanumeric(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }
bool is_name(char c) { return is_ascii_alphanumeric(c) || c == '_' || static_cast<unsigned char>(c) >= 0x80; }
bool is_base64(char c) { return is_ascii_alphanumeric(c) || c == '+' || c == '/'; }
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool is_alphanumeric(utf8proc_int32_t code_point) {
  const utf8proc_category_t category = utf8proc_category(code_point);
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
         (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

double share(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

/// Behind a number that begins at i: 12, 0x1f, 1.5e-3f, 1_000u.
size_t number_end(std::string_view code, size_t i) {
  const bool hexadecimal = code.substr(i, 2) == "0x" || code.substr(i, 2) == "0X";
  for (++i; i < code.size(); ++i) {
    const bool exponent_sign = (code[i] == '-' || code[i] == '+') && (code[i - 1] == 'e' || code[i - 1] == 'E') &&
                               !hexadecimal && i + 1 < code.size() && is_digit(code[i + 1]);
    if (!is_name(code[i]) && code[i] != '.' && !exponent_sign) break;
  }
  return i;
}

double data_share(std::string_view code) {
  uint64_t data = 0, bytes = 0;
  size_t base64_end = 0;  // of the run that i is in
  for (size_t i = 0; i < code.size();) {
    if (is_space(code[i]) || code[i] == ',') {
      ++i;
      continue;
    }
    size_t end = i + 1;
    if (is_base64(code[i]) || is_name(code[i])) {
      if (i >= base64_end)
        for (base64_end = i; base64_end < code.size() && is_base64(code[base64_end]);) ++base64_end;
      if (base64_end >= i + kBase64Run) {
        end = base64_end;
        data += end - i;
      } else if (is_digit(code[i])) {
        end = number_end(code, i);
        data += end - i;
      } else if (is_name(code[i])) {
        while (end < code.size() && is_name(code[end])) ++end;
      }
    }
    bytes += end - i;
    i = end;
  }
  return share(data, bytes);
}

}  // namespace

CodeMeasures measure_code(std::string_view code) {
  CodeMeasures measures;
  uint64_t code_points = 0, alphanumeric = 0, lines = 0, in_lines = 0, in_long_lines = 0;
  for (size_t begin = 0; begin < code.size(); ++lines) {
    const size_t end = std::min(code.find('\n', begin), code.size());
    uint64_t length = 0;
    for (size_t i = begin; i < end; ++length) {
      utf8proc_int32_t code_point = static_cast<unsigned char>(code[i]);
      if (code_point < 0x80) {
        alphanumeric += is_ascii_alphanumeric(code[i]) ? 1 : 0;
        ++i;
        continue;
      }
      const auto read = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(code.data() + i),
                                         static_cast<utf8proc_ssize_t>(end - i), &code_point);
      alphanumeric += read > 0 && is_alphanumeric(code_point) ? 1 : 0;
      i += read > 0 ? static_cast<size_t>(read) : 1;
    }
    measures.longest_line = std::max(measures.longest_line, static_cast<double>(length));
    in_lines += length;
    if (length > kLongLine) in_long_lines += end - begin;
    code_points += length + (end < code.size() ? 1 : 0);
    begin = end + 1;
  }
  measures.mean_line = share(in_lines, lines);
  measures.alphanumeric = share(alphanumeric, code_points);
  measures.minified = share(in_long_lines, code.size());
  measures.data = data_share(code);
  return measures;
}

}  // namespace coppice
