#include "src/corpus/run/removal_file.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/files.h"
#include "src/base/json.h"

namespace coppice {
namespace {

std::string to_text(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

void RemovalFile::write(const Document& document, const Removed& removed, bool with_text) {
  if (!sink_) {
    make_folder(path_.parent_path());
    sink_ = std::make_unique<ByteSink>(path_, ByteSink::Coding::zstd);
  }
  const Removal& removal = removed.removal;
  nlohmann::ordered_json line = {{"id", document.id}, {"source", document.source}, {"rule", removal.rule}};
  if (removal.value && std::isfinite(*removal.value)) line["value"] = *removal.value;
  if (removal.threshold) line["threshold"] = *removal.threshold;
  std::string text = to_text(line);
  text.pop_back();
  if (!removal.details.empty()) text += "," + removal.details;
  if (with_text) text += ",\"text\":" + to_text(removed.text);
  sink_->write(text + "}\n");
}

void RemovalFile::commit() {
  if (sink_) sink_->commit();
}

}  // namespace coppice
