// What an evaluation asks beside loss and accuracy: whether probabilities are to be believed, and whether a model
// copies from its context. The table of copying, and the words below the table of models.
#pragma once

#include <string>

#include "recipes/report/report_tables.h"

namespace coppice {

/// What the columns of calibration and copying mean, a sentence or two, each begun by a space; empty where no model has
/// them.
std::string probes_note(const Report& report);

/// A row a model, a column a distance. Without rows when nothing was probed.
ReportTable copying_table(const Report& report);

}  // namespace coppice
