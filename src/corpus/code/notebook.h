// Jupyter notebooks as text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace coppice {

inline constexpr size_t kMaxNotebookBytes = size_t{16} << 20;

struct Notebook {
  std::string text;      // code and Markdown cells in their order, a blank line between them; outputs left out
  std::string language;  // as the notebook names it: "python"; empty where it does not
};

/// Formats 3 and 4. Nothing for what is no JSON, nested deeper than 64, larger than kMaxNotebookBytes or no notebook.
std::optional<Notebook> read_notebook(std::string_view json);

}  // namespace coppice
