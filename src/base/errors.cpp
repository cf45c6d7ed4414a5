// The wording of errors: every factory builds its text here, so that one place decides what a person reads.
#include "src/base/errors.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "src/base/files.h"
#include "src/base/log.h"

namespace coppice {
namespace {

/// The path below the source root: this file's own name says how long the root is.
std::string_view source_name(std::string_view file) {
  constexpr std::string_view kThisFile = "src/base/errors.cpp";
  const std::string_view self = __FILE__;
  const size_t root = self.size() >= kThisFile.size() ? self.size() - kThisFile.size() : 0;
  return file.starts_with(self.substr(0, root)) ? file.substr(root) : file;
}

std::string located(std::string_view where, const std::string& message) {
  return where.empty() ? printable_lines(message) : printable(where) + ": " + printable_lines(message);
}

std::string io_text(std::string_view path, const std::string& message, int error_number) {
  std::string text = located(path, message);
  if (error_number == 0) return text;
  text += fmt::format(": {}", std::strerror(error_number));
  if (error_number != ENOSPC && error_number != EDQUOT) return text;
  try {
    const uint64_t free = free_bytes(std::filesystem::path(path));
    text += fmt::format(" ({} free)", format_bytes(static_cast<double>(free)));
  } catch (const std::exception&) {  // the disk's own error matters more than the question how full it is
  }
  return text;
}

/// Length of the valid UTF-8 sequence at the start of `text` (no overlong forms, no surrogates), 0 when there is none.
size_t utf8_length(std::string_view text, uint32_t& code_point) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    code_point = first;
    return 1;
  }
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  code_point = first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code_point = (code_point << 6) | (byte(i) & 0x3Fu);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  return code_point < kSmallest[length] || code_point > 0x10FFFF || surrogate ? 0 : length;
}

}  // namespace

InternalError::InternalError(const std::string& message, std::source_location at)
    : Error(ExitCode::internal, fmt::format("{}:{}: {}", source_name(at.file_name()), at.line(), message)) {}

UserError UserError::recipe(std::string_view where, const std::string& message) {
  return UserError(ExitCode::recipe, located(where, message));
}
UserError UserError::bad_file(std::string_view path, const std::string& message) {
  return UserError(ExitCode::bad_file, located(path, message));
}
UserError UserError::folder_locked(std::string_view path, const std::string& message) {
  return UserError(ExitCode::locked, located(path, message));
}

IoError::IoError(std::string_view path, const std::string& message, int error_number)
    : Error(ExitCode::io, io_text(path, message, error_number)) {}

DeviceError DeviceError::out_of_memory(const std::string& message) {
  return DeviceError(ExitCode::out_of_memory, message);
}
DeviceError DeviceError::timed_out(const std::string& message) { return DeviceError(ExitCode::timed_out, message); }
DeviceError DeviceError::unavailable(const std::string& message) { return DeviceError(ExitCode::internal, message); }

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    uint32_t code_point = 0;
    const size_t length = utf8_length(text, code_point);
    const bool direction = (code_point >= 0x202A && code_point <= 0x202E) ||
                           (code_point >= 0x2066 && code_point <= 0x2069);  // may reorder a line
    if (length == 0) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[0]));
    } else if (code_point < 0x20 || code_point == 0x7F) {
      out += code_point == '\n' ? "\\n" : code_point == '\t' ? "\\t" : fmt::format("\\x{:02x}", code_point);
    } else if ((code_point >= 0x80 && code_point < 0xA0) || code_point == 0x2028 || code_point == 0x2029 || direction) {
      out += fmt::format("\\u{:04x}", code_point);
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string printable_lines(std::string_view text) {
  std::string out;
  for (;;) {
    const size_t end = text.find('\n');
    out += printable(text.substr(0, end));
    if (end == std::string_view::npos) return out;
    out += '\n';
    text.remove_prefix(end + 1);
  }
}

}  // namespace coppice
