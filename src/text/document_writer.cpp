// Documents out: one JSON object a line, zstd with content checksums, committed by rename.
#include "src/text/document_writer.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/text/byte_sink.h"
#include "src/text/byte_source.h"
#include "src/text/document_metadata.h"
#include "src/text/file_endings.h"

namespace coppice {

struct DocumentWriter::State {
  ByteSink sink;
  uint64_t text_bytes = 0;
};

namespace {

ByteSink::Coding coding_of(const std::filesystem::path& path) {
  const FileEnding* ending = ending_of(path);
  return ending != nullptr && ending->coding == ByteSource::Coding::plain ? ByteSink::Coding::plain
                                                                          : ByteSink::Coding::zstd;
}

std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

/// The members of "metadata": ours around those that came with the document.
std::string metadata_of(const Document& document) {
  std::string members;
  const auto add = [&](const std::string& member) { members += (members.empty() ? "" : ",") + member; };
  const std::optional<Json> own = find_metadata(document, "license");
  if (!own) {
    if (!document.license.empty() || document.metadata.empty()) add("\"license\":" + quoted(document.license));
    if (!document.metadata.empty()) add(document.metadata);
  } else {  // a list, or null, that came with the document: what a step has decided takes its place
    Document decided{.metadata = document.metadata};
    if (!document.license.empty() && (!document.is_source_license || own->is_null()))
      set_metadata(decided, "license", document.license);
    add(decided.metadata);
  }
  std::string scores;
  for (const Score& score : document.scores) {
    COPPICE_CHECK(std::isfinite(score.value), score.name + " of " + document.id + " is not finite");
    scores += fmt::format("{}{}:{}", scores.empty() ? "" : ",", quoted(score.name), score.value);
  }
  if (!scores.empty()) add("\"scores\":{" + scores + "}");
  return members;
}

}  // namespace

DocumentWriter::DocumentWriter(std::filesystem::path path)
    : state_(new State{.sink = ByteSink(path, coding_of(path))}) {}

DocumentWriter::~DocumentWriter() = default;

void DocumentWriter::write(const Document& document) {
  COPPICE_CHECK(simdjson::validate_utf8(document.text), "document text is not UTF-8: " + document.id);
  const std::string& fields = document.fields;
  state_->sink.write(fmt::format("{{\"id\":{},\"source\":{},\"text\":{}{}{},\"metadata\":{{{}}}}}\n",
                                 quoted(document.id), quoted(document.source), quoted(document.text),
                                 fields.empty() ? "" : ",", fields, metadata_of(document)));
  state_->text_bytes += document.text.size();
}

void DocumentWriter::commit() { state_->sink.commit(); }

uint64_t DocumentWriter::text_bytes() const { return state_->text_bytes; }

}  // namespace coppice
