#include "src/text/steps/step_inputs.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "src/base/errors.h"
#include "src/text/documents.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

void add_below(std::vector<InputFile>& files, const StepRow& step, const StepOptions& options, const fs::path& folder) {
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->is_symlink() || !entry->is_regular_file() || !step.reads(entry->path())) continue;
    files.push_back({options.source + "/" + entry->path().lexically_relative(folder).generic_string(), entry->path()});
  }
  if (error) throw UserError::bad_file(folder.string(), "cannot list the folder: " + error.message());
}

/// Of files in an order that puts equal names side by side.
void check_names_differ(const std::vector<InputFile>& files) {
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

std::vector<InputFile> list_inputs(const StepRow& step, const StepOptions& options, bool by_hash) {
  std::vector<InputFile> files;
  for (const fs::path& input : options.inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (error || !fs::exists(status)) throw UserError::bad_file(input.string(), "no such file or folder");
    if (fs::is_directory(status)) {
      add_below(files, step, options, input);
    } else if (step.reads(input)) {
      files.push_back({options.source + "/" + input.filename().generic_string(), input});
    } else {
      throw UserError::bad_file(input.string(), fmt::format("expected {}", step.expected));
    }
  }
  std::ranges::sort(files, [by_hash](const InputFile& a, const InputFile& b) {
    return by_hash ? comes_first_by_hash(a.name, b.name) : a.name < b.name;
  });
  check_names_differ(files);
  return files;
}

}  // namespace coppice
