// What the rules of whole documents measure. Each writes the values of its rule set in the order of quality_rules.cpp
// and leaves out what is not defined for the text.
#pragma once

#include <cstdint>
#include <span>

#include "src/corpus/quality/quality_text.h"
#include "src/corpus/quality/repetition.h"

namespace coppice {

void measure_gopher_quality(QualityText& text, std::span<double> values);
/// A line of at most `short_line` code points is a short one.
void measure_fineweb(QualityText& text, int64_t short_line, Repetition& repetition, std::span<double> values);
void measure_ratios(QualityText& text, std::span<double> values);

}  // namespace coppice
