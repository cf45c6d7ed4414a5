// The facts of a report as tables of words: written once, rendered as Markdown and as HTML.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "recipes/report/report.h"

namespace coppice {

enum class ReportSection { models, speed, training, masks, costs, checks, provenance };

struct ReportTable {
  ReportSection section;
  std::string title, note;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as wide as the header; unescaped
  std::vector<bool> is_text;                   // per column: left-aligned words, otherwise numbers
  size_t num_totals = 0;                       // last rows that sum others
};

/// All tables that hold something, in the order they are shown. A column without a single value is left out.
std::vector<ReportTable> report_tables(const Report& report);

/// The judged model, then what it is held against: what the verdict rests on. Without rows when there is nothing.
ReportTable comparisons_table(const Report& report);

/// "a", "a and b", "a, b and c".
std::string listed(const std::vector<std::string>& items);

/// The table's header and rows in columns of plain text, for a terminal.
std::string table_text(const ReportTable& table);
/// The table's rows and note as Markdown, without its title; every cell escaped.
std::string table_markdown(const ReportTable& table);
/// Text from a name inside Markdown: no new table cells, tags, emphasis or links.
std::string escape_markdown(std::string_view text);
/// Drops columns (never the first) that hold nothing but dashes.
ReportTable without_empty_columns(ReportTable table);

/// "0.4 s", "12 s", "3:04", "812k", "1.2 MiB"; "–" when absent.
std::string duration_text(double seconds);
std::string count_text(double value);
std::string bytes_text(double bytes);
/// "39.4%", "3.230", "1.2 PFLOP"; "–" when absent.
std::string share_text(double share, int decimals = 1);
std::string fixed_text(double value, int decimals);
std::string flops_text(double flops);
/// "256", or "256, 128, 256" when layers differ.
std::string widths_text(const std::vector<int64_t>& widths);

/// Sum over the stages of one purpose of a member that is present; NaN when none is.
double total_of(const Report& report, StagePurpose purpose, double ReportStage::*member);

}  // namespace coppice
