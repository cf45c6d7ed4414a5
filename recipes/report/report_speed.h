// How fast models read and write, in coppice and in llama.cpp: the table, and the sentence of the verdict.
#pragma once

#include <string>

#include "recipes/report/report_tables.h"

namespace coppice {

/// A row a measured model and program, and exported files that nobody measured beside them. Without rows when nothing
/// was measured.
ReportTable speeds_table(const Report& report);

/// How fast the judged model decodes beside its source, for each program that measured both with weights of one type:
/// "decodes 1.31x as fast in coppice (F32)"; with no difference shown where the ranges of the turns overlap. Empty when
/// none did.
std::string speed_clause(const Report& report);

}  // namespace coppice
