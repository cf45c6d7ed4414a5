// Any input format to documents: a folder of files of about equal size, in the order of the inputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/corpus/sources/source.h"

namespace coppice {

struct ConvertOptions {
  std::vector<std::string> inputs;  // files, folders, patterns: each is a source by the name of its folder
  std::filesystem::path out;        // a folder; what it holds already is not touched
  std::string kind, text = "text", license = "unknown";
  double max_bad_share = 0.001;
  uint64_t file_bytes = uint64_t{256} << 20;  // of text, after which a file ends
};

struct ConvertReport {
  SourceReport total;  // over all inputs; first_bad of the first ones
  uint64_t pages = 0;  // documents whose text is HTML: their lines say "is_page":true
  uint64_t text_bytes = 0;
  std::vector<std::string> files;  // written: documents-00000.jsonl.zst, ...
};

/// Writes the documents of all inputs. UserError::recipe for no input, an input that matches nothing, an output folder
/// that holds documents-*.jsonl.zst; UserError::bad_file as read_source_file().
ConvertReport convert_to_documents(const ConvertOptions& options);

}  // namespace coppice
