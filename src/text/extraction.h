// Turns one file of a documentation or source tree into the texts of documents: HTML through the parser, dictionaries
// cut into blocks of entries, everything else verbatim; and says which texts are not worth training on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coppice {

enum class TextKind {
  none,        // an image, an index, a binary: no documents in it
  plain,       // prose, markup and source code, kept as it is
  html,        // body text of the page
  dictionary,  // entries: cut into documents of about kDictionaryBlockBytes
};

inline constexpr size_t kDictionaryBlockBytes = 4096;
inline constexpr size_t kMinDocumentBytes = 200;

/// What a file holds, by its name alone: .html/.htm/.xhtml; .txt, .md, .rst, .pod and source code; .dict and .dict.dz;
/// each also with .gz behind it.
TextKind text_kind(const std::filesystem::path& path);

/// The texts of one file in the order of the file: one for `plain` and `html`, many for `dictionary`, none for `none`.
/// UserError::bad_file when it cannot be read or unpacked, or is larger than 64 MB. The texts may be invalid UTF-8: see
/// rejection_reason().
std::vector<std::string> extract_texts(const std::filesystem::path& path);

/// Cuts dictionary text before an entry (an unindented line after an empty one) as soon as a block has `block_bytes`.
std::vector<std::string> split_entries(std::string_view text, size_t block_bytes);

/// Why a text is no document, or nullptr: "not UTF-8", "binary", "short" (under kMinDocumentBytes), "navigation" (a
/// page whose lines are mostly links to others).
const char* rejection_reason(std::string_view text, TextKind kind);

}  // namespace coppice
