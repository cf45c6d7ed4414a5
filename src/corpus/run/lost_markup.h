// Sources whose texts have lost their markup, and steps that look for it.
#pragma once

#include <string>
#include <vector>

#include "src/corpus/run/corpus_settings.h"

namespace coppice {

/// A warning for each source with WET files that a step which reads markup looks at.
std::vector<std::string> lost_markup_warnings(const CorpusSettings& settings, const std::vector<SourceFile>& files);

}  // namespace coppice
