// Files to texts. What a file holds is read off its name; unpacking and its limits are ByteSource's.
#include "src/text/extraction.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>

#include "src/base/errors.h"
#include "src/text/byte_source.h"
#include "src/text/documents.h"
#include "src/text/html/documentation_page.h"
#include "src/text/text_encoding.h"

namespace coppice {

namespace {

namespace fs = std::filesystem;

constexpr std::array kHtmlSuffixes = {".html", ".htm", ".xhtml"};
constexpr std::array kDictionarySuffixes = {".dict", ".dict.dz"};
constexpr std::array kPlainSuffixes = {
    ".txt", ".md",   ".rst", ".pod", ".tex",  // prose with or without marks
    ".py",  ".pl",   ".pm",  ".rs",  ".c",   ".h",  ".cc", ".cpp", ".hpp", ".cu",  ".cuh",  // source code
    ".go",  ".java", ".js",  ".ts",  ".sh",  ".rb", ".R",  ".jl",  ".lua", ".f90", ".ml",  ".hs", ".sql",
};
// Pages made by documentation tools that list other pages; their names do not vary.
constexpr std::array kIndexNames = {"index",  "genindex", "bookindex", "theindex",    "chapInd",
                                    "search", "contents", "toc",       "py-modindex", "modindex",
                                    "print",  "redirect", "all",       "docguide",    "not_found"};

template <class Suffixes>
bool ends_with_any(std::string_view name, const Suffixes& suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(), [&](std::string_view suffix) { return name.ends_with(suffix); });
}

bool is_packed(std::string_view name) { return name.ends_with(".gz") || name.ends_with(".dz"); }

std::string read_unpacked(const fs::path& path) {
  ByteSource source(path, is_packed(path.filename().string()) ? ByteSource::Coding::gzip : ByteSource::Coding::plain);
  std::string bytes;
  for (std::string_view block = source.next(); !block.empty(); block = source.next()) {
    bytes += block;
    if (bytes.size() > kMaxDocumentBytes)
      throw UserError::bad_file(path.string(), fmt::format("larger than {} MB when unpacked", kMaxDocumentBytes >> 20));
  }
  if (bytes.starts_with(kByteOrderMark)) bytes.erase(0, kByteOrderMark.size());
  return bytes;
}

/// More than half of the bytes in short list lines: a table of contents.
bool is_navigation(std::string_view text) {
  constexpr size_t kShortLine = 100;
  size_t in_lists = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (line.starts_with("- ") && line.size() < kShortLine) in_lists += line.size();
    begin = end + 1;
  }
  return in_lists * 2 > text.size();
}

}  // namespace

TextKind text_kind(const fs::path& path) {
  std::string name = path.filename().string();
  if (name.ends_with(".gz")) name.resize(name.size() - 3);
  if (ends_with_any(name, kHtmlSuffixes)) {
    const std::string stem = name.substr(0, name.rfind('.'));
    return std::find(kIndexNames.begin(), kIndexNames.end(), stem) == kIndexNames.end() ? TextKind::html
                                                                                        : TextKind::none;
  }
  if (ends_with_any(name, kDictionarySuffixes)) return TextKind::dictionary;
  return ends_with_any(name, kPlainSuffixes) ? TextKind::plain : TextKind::none;
}

std::vector<std::string> extract_texts(const fs::path& path) {
  switch (text_kind(path)) {
    case TextKind::none:
      return {};
    case TextKind::plain:
      return {read_unpacked(path)};
    case TextKind::html:
      return {html_to_text(read_unpacked(path), path)};
    case TextKind::dictionary:
      return split_entries(read_unpacked(path), kDictionaryBlockBytes);
  }
  throw InternalError("unknown kind of text");
}

std::vector<std::string> split_entries(std::string_view text, size_t block_bytes) {
  std::vector<std::string> blocks;
  size_t begin = 0;
  for (size_t gap = text.find("\n\n"); gap != std::string_view::npos; gap = text.find("\n\n", gap + 1)) {
    const size_t entry = gap + 2;
    const bool starts_entry = entry < text.size() && text[entry] != ' ' && text[entry] != '\t' && text[entry] != '\n';
    if (!starts_entry || entry - begin < block_bytes) continue;
    blocks.emplace_back(text.substr(begin, gap + 1 - begin));
    begin = entry;
  }
  if (begin < text.size()) blocks.emplace_back(text.substr(begin));
  return blocks;
}

const char* rejection_reason(std::string_view text, TextKind kind) {
  if (text.size() < kMinDocumentBytes) return "short";
  if (wide_encoding(text) != nullptr) return "UTF-16 or UTF-32, not UTF-8";
  if (text.find('\0') != std::string_view::npos) return "binary";
  if (!simdjson::validate_utf8(text.data(), text.size())) return "not UTF-8";
  if (kind == TextKind::html && is_navigation(text)) return "navigation";
  return nullptr;
}

}  // namespace coppice
