#include "src/text/corpus_sha256.h"

#include <fmt/format.h>

#include <system_error>
#include <vector>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/input_file.h"
#include "src/base/signals.h"
#include "src/text/documents.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

void check_stop() {
  if (stop_requested()) throw Stopped("stopped while reading the corpus; run again to go on");
}

}  // namespace

std::string corpus_sha256(const std::filesystem::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status))
    throw UserError::bad_file(path.string(), error && error != std::errc::no_such_file_or_directory
                                                 ? error.message()
                                                 : "no such corpus file or folder" + searched_from(path));
  if (!fs::is_directory(status)) {
    if (fs::is_regular_file(status) && stored_bytes(path) == 0)
      throw UserError::bad_file(path.string(), "the corpus file is empty");
    return sha256_file(path, check_stop);
  }
  const std::vector<std::string> files = corpus_files(path);
  if (files.empty())
    throw UserError::bad_file(path.string(),
                              fmt::format("the corpus folder holds no file ending in {}", kCorpusEndings));
  Sha256 hash;
  for (const std::string& file : files) hash.update(file + "\n" + sha256_file(path / file, check_stop) + "\n");
  return hash.hex();
}

}  // namespace coppice
