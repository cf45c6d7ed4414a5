// One line of a JSONL corpus to a document, its unknown fields kept.
#include <exception>

#include "fuzz/target.h"
#include "src/text/document_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return coppice::fuzz::run(data, size, [](std::string_view bytes) {
    if (bytes.find_first_not_of(" \t") == std::string_view::npos) return;  // readers pass blank lines over
    static coppice::RecordParser parser("text", /*keep_fields=*/true);
    std::string padded(bytes);
    padded.append(64, '\0');  // simdjson reads beyond the end
    try {
      parser.parse(std::string_view(padded).substr(0, bytes.size()));
    } catch (const coppice::BadRecord&) {
    }
  });
}
