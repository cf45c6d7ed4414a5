// The language of a text by CLD2, from slices of it.
#pragma once

#include <string>
#include <string_view>

namespace coppice {

struct Language {
  std::string code;  // ISO 639, with the script where a language has several: en, de, zh, zh-Hant; un = unknown
  double share = 0;  // of the text as far as it was read; 0 where CLD2 does not call its answer reliable
};

/// Of valid UTF-8. Three slices of 640 bytes are read, begin, middle and end, or all of a text that is no longer; where they
/// tell nothing reliable (code, tables), the first 64 kB. Threads may call it at once.
Language detect_language(std::string_view text);
/// Whether detect_language() may answer with it.
bool is_language_code(std::string_view code);

}  // namespace coppice
