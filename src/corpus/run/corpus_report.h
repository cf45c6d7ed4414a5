// What a finished corpus says of itself: the drop table, counts of each step, where everything came from.
#pragma once

#include <vector>

#include "src/corpus/run/corpus_folder.h"
#include "src/corpus/run/corpus_settings.h"
#include "src/corpus/run/passes.h"

namespace coppice {

/// inputs.json: {"paths": {name of a source file: where it lay}}. For samples of what went; it decides nothing.
inline constexpr const char* kInputsName = "inputs.json";
inline constexpr const char* kInputsFormat = "coppice.corpus_inputs";

/// Sums the records of all passes and writes stats/<step>.json, stats/groups/<step>/ (what group steps leave for
/// people), sources.json, SOURCES.md, inputs.json, report.md, report.html, report.svg and, last of all, report.json,
/// which says that the corpus is complete. Alarms and warnings are logged.
void write_corpus_report(const CorpusSettings& settings, const std::vector<SourceFile>& files,
                         const std::vector<Pass>& passes, const CorpusFolder& folder);

/// Of a complete corpus: what it holds.
Amount corpus_documents(const CorpusFolder& folder);
/// Of a complete corpus: refuses source files that are not those it was made of.
void check_report_inputs(const CorpusFolder& folder, const std::vector<SourceFile>& files);

}  // namespace coppice
