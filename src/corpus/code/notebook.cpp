#include "src/corpus/code/notebook.h"

#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/json.h"

namespace coppice {
namespace {

/// A member that may be absent, of any type.
const Json& member(const Json& object, const char* key) {
  static const Json nothing;
  if (!object.is_object()) return nothing;
  const auto found = object.find(key);
  return found == object.end() ? nothing : *found;
}

/// A text, or a list of its lines with their ends.
std::string joined(const Json& source) {
  if (source.is_string()) return source.get<std::string>();
  std::string text;
  if (source.is_array())
    for (const Json& line : source)
      if (line.is_string()) text += line.get_ref<const std::string&>();
  return text;
}

void add_cells(const Json& cells, std::string& text) {
  if (!cells.is_array()) return;
  for (const Json& cell : cells) {
    const Json& type = member(cell, "cell_type");
    if (type != "code" && type != "markdown") continue;
    std::string source = joined(member(cell, "source"));
    if (source.empty()) source = joined(member(cell, "input"));  // code of format 3
    while (!source.empty() && source.back() == '\n') source.pop_back();
    if (source.empty()) continue;
    if (!text.empty()) text += '\n';
    text += source;
    text += '\n';
  }
}

}  // namespace

std::optional<Notebook> read_notebook(std::string_view json) {
  if (json.size() > kMaxNotebookBytes) return std::nullopt;
  Json page;
  try {
    page = parse_json(json, "notebook");
  } catch (const UserError&) {
    return std::nullopt;
  }
  if (!member(page, "cells").is_array() && !member(page, "worksheets").is_array()) return std::nullopt;
  Notebook notebook;
  add_cells(member(page, "cells"), notebook.text);
  if (member(page, "worksheets").is_array())
    for (const Json& sheet : member(page, "worksheets")) add_cells(member(sheet, "cells"), notebook.text);
  const Json& about = member(page, "metadata");
  for (const Json* name : {&member(member(about, "language_info"), "name"),
                           &member(member(about, "kernelspec"), "language"), &member(about, "language")})
    if (notebook.language.empty() && name->is_string()) notebook.language = name->get<std::string>();
  return notebook;
}

}  // namespace coppice
