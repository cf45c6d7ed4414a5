#include "src/corpus/extract_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "src/base/errors.h"
#include "src/text/documents.h"
#include "src/text/extraction.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

SourceFile file_of(const std::string& source, const fs::path& relative, const fs::path& path) {
  const std::string name = source + "/" + relative.generic_string();
  return {.name = name, .path = path, .kind = "text", .output = name};
}

void add_below(std::vector<SourceFile>& files, const std::string& source, const fs::path& folder) {
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->is_symlink() || !entry->is_regular_file() || text_kind(entry->path()) == TextKind::none) continue;
    files.push_back(file_of(source, entry->path().lexically_relative(folder), entry->path()));
  }
  if (error) throw UserError::bad_file(folder.string(), "cannot list the folder: " + error.message());
}

/// Of files in an order that puts equal names side by side.
void check_names_differ(const std::vector<SourceFile>& files) {
  for (size_t i = 1; i < files.size(); ++i)
    if (files[i].name == files[i - 1].name)
      throw UserError::recipe(
          "", fmt::format("'{}' and '{}' would share the id '{}'; extract them one by one with a source each",
                          files[i - 1].path.string(), files[i].path.string(), files[i].name));
}

}  // namespace

bool comes_first_by_hash(const std::string& a, const std::string& b) {
  const uint64_t hash_a = sample_hash(a), hash_b = sample_hash(b);
  return hash_a != hash_b ? hash_a < hash_b : a < b;
}

std::vector<SourceFile> list_extractable(const std::vector<fs::path>& inputs, const std::string& source, bool by_hash) {
  std::vector<SourceFile> files;
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (error || !fs::exists(status)) throw UserError::bad_file(input.string(), "no such file or folder");
    if (fs::is_directory(status)) {
      add_below(files, source, input);
    } else if (text_kind(input) != TextKind::none) {
      files.push_back(file_of(source, input.filename(), input));
    } else {
      throw UserError::bad_file(input.string(),
                                "expected a folder, or a file of HTML, text, source code or dictionary "
                                "entries (.html, .txt, .py, .dict.dz, ...)");
    }
  }
  std::ranges::sort(files, [by_hash](const SourceFile& a, const SourceFile& b) {
    return by_hash ? comes_first_by_hash(a.name, b.name) : a.name < b.name;
  });
  check_names_differ(files);
  return files;
}

}  // namespace coppice
