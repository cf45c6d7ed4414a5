// Benchmarks as users have them: files of lines (JSONL, also packed) or a table (CSV), one benchmark a file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "src/corpus/decontaminate/benchmark_form.h"

namespace coppice {

struct Benchmark {
  std::string name;  // the file's without its endings
  std::vector<BenchmarkItem> items;
};

/// The files that paths and patterns (`*`, `?`) name, each once, sorted by the names of their benchmarks.
/// UserError::recipe at `where` for one that matches nothing or is no .jsonl, .ndjson, .json or .csv, also .gz or .zst,
/// and for two benchmarks of one name.
std::vector<std::filesystem::path> benchmark_files(const std::vector<std::string>& patterns, const std::string& where);
std::string benchmark_name(const std::filesystem::path& file);
/// UserError::bad_file with file:line for a line that is no JSON object or of no form that is known
/// (benchmark_form.h), for an unclosed quote, and for a file without an item.
Benchmark read_benchmark(const std::filesystem::path& file);

}  // namespace coppice
