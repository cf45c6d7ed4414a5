// What refits of cuts brought back: the table.
#pragma once

#include "recipes/report/report_tables.h"

namespace coppice {

/// Layers down, refitted cuts across; below them the losses. Without rows when nothing was refitted.
ReportTable refits_table(const Report& report);

}  // namespace coppice
