#include "src/text/documents_folder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxManifestBytes = uint64_t{64} << 20;

/// Whether a file says of itself that it is a manifest of this format, be it whole or damaged.
bool names_format(const fs::path& path, const char* format) {
  std::error_code error;
  if (!fs::is_regular_file(path, error) || fs::file_size(path, error) > kMaxManifestBytes || error) return false;
  return read_file(path, kMaxManifestBytes).find(fmt::format("\"format\":\"{}\"", format)) != std::string::npos;
}

}  // namespace

fs::path documents_folder(const fs::path& folder) {
  const fs::path report = folder / "report.json";
  if (names_format(report, kCorpusReportFormat)) {
    (void)read_sealed(report, kCorpusReportFormat, 1);
    return folder / "documents";
  }
  if (names_format(folder / "work" / "corpus.json", kCorpusRunFormat))
    throw UserError::bad_file(folder.string(), "the corpus is not complete; run coppice data run again to finish it");
  return folder;
}

}  // namespace coppice
