// One line of a JSONL corpus to a document, its unknown fields kept, which steps then look into and write into.
#include <cstdlib>
#include <exception>
#include <nlohmann/json.hpp>

#include "fuzz/target.h"
#include "src/text/document_metadata.h"
#include "src/text/document_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    if (bytes.find_first_not_of(" \t") == std::string_view::npos) return;  // readers pass blank lines over
    static coppice::RecordParser parser("text", /*keep_fields=*/true);
    std::string padded(bytes);
    padded.append(64, '\0');  // simdjson reads beyond the end
    try {
      coppice::Document document = parser.parse(std::string_view(padded).substr(0, bytes.size()));
      for (const char* name : {"url", "date", "license", "language", "scores"}) {
        coppice::find_member(document, {name, "path"});
        coppice::member_text(document, name);
      }
      coppice::set_metadata(document, "language", "en");
      coppice::set_metadata(document, "copies", 2);
      if (coppice::metadata_text(document, "language") != "en") std::abort();
    } catch (const coppice::BadRecord&) {
    }
  });
}
