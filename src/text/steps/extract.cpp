#include "src/text/steps/extract.h"

#include <fmt/format.h>

#include <memory>
#include <set>
#include <string>
#include <utility>

#include "src/base/files.h"
#include "src/text/extraction.h"

namespace coppice {
namespace {

namespace fs = std::filesystem;

Decision keep_text(Document& document) {
  if (document.text.size() < kMinDocumentBytes)
    return Decision::drop("short", static_cast<double>(document.text.size()), kMinDocumentBytes);
  const char* reason = rejection_reason(document.text, text_kind(*document.file));
  return reason == nullptr ? Decision::keep() : Decision::drop(reason);
}

/// What is left of the budget grows smaller, so a text that does not fit now never will.
MapStep keep_fitting(uint64_t max_bytes, const StepReport& so_far) {
  return [max_bytes, &so_far](Document& document) {
    const uint64_t left = max_bytes - so_far.text_bytes, bytes = document.text.size();
    return bytes <= left ? Decision::keep()
                         : Decision::drop("does not fit", static_cast<double>(bytes), static_cast<double>(left));
  };
}

/// Of equal texts the first one that comes stays.
MapStep keep_first() {
  return [seen = std::set<std::string>()](Document& document) mutable {
    return seen.insert(sha256_hex(document.text)).second ? Decision::keep() : Decision::drop("duplicate");
  };
}

}  // namespace

bool is_extractable(const fs::path& path) { return text_kind(path) != TextKind::none; }

void read_extractable(const InputFile& file, const StepOptions& options, const std::function<void(Document&&)>& take) {
  std::vector<std::string> texts = extract_texts(file.path);
  const auto path = std::make_shared<const std::string>(file.path.string());
  for (size_t i = 0; i < texts.size(); ++i)
    take({.id = texts.size() == 1 ? file.name : fmt::format("{}#{}", file.name, i + 1),
          .source = options.source,
          .text = std::move(texts[i]),
          .license = options.license,
          .file = path});
}

std::vector<MapStep> extract_chain(const StepOptions& options, const StepReport& so_far) {
  std::vector<MapStep> chain = {keep_text};
  if (options.max_bytes > 0) chain.push_back(keep_fitting(options.max_bytes, so_far));
  chain.push_back(keep_first());
  return chain;
}

}  // namespace coppice
