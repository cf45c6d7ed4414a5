// Tables of a run's report as HTML, within the frame of src/base/html_page.h.
#pragma once

#include <string>
#include <vector>

#include "recipes/report/report_tables.h"
#include "src/base/html_page.h"

namespace coppice {

/// `highlighted`: rows of the models section whose first cell is one of these.
std::string table_html(const ReportTable& table, bool with_title, const std::vector<std::string>& highlighted = {});

}  // namespace coppice
