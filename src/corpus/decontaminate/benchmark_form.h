// A line of a benchmark, in the forms in which benchmarks are published: which field asks, which answers, and which of
// the choices is right. A form is a row of the table in benchmark_form.cpp.
#pragma once

#include <optional>
#include <string>

#include "src/base/json.h"

namespace coppice {

struct BenchmarkItem {
  std::string question;
  std::string with_answer;  // question and right answer as one text; empty where no answer is given
};

/// By the first row whose fields the line has; nothing where no row fits.
std::optional<BenchmarkItem> read_benchmark_item(const Json& line);
/// The forms, for messages: `text; question, choices, answer; ...`.
std::string benchmark_forms();

}  // namespace coppice
