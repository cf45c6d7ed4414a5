// read_documents KIND TEXT FILE: the documents of a file as lines of {"id", "text", "url"}, then what was counted
// besides.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/json.h"
#include "src/corpus/sources/source.h"
#include "src/text/document_metadata.h"

int main(int argc, char** argv) try {
  using namespace coppice;
  if (argc != 4) return 2;
  const SourceOptions source{.name = "s", .path = argv[3], .kind = argv[1], .text = argv[2]};
  for (const SourceFile& file : list_source_files({source})) {
    const SourceReport report = read_source_file(file, source, {}, [](Document&& document) {
      const Json line = {{"id", document.id}, {"text", document.text}, {"url", metadata_text(document, "url")}};
      fmt::print("{}\n", line.dump());
    });
    fmt::print("{}\n", Json({{"passed", report.passed}, {"bad", report.bad}}).dump());
  }
  return 0;
} catch (const coppice::Error& error) {
  fmt::print(stderr, "{}\n", error.what());
  return static_cast<int>(error.code());
}
