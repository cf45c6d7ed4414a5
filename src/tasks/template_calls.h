// What the functions, methods, filters and tests of a template give for values. Private to src/tasks.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/tasks/template_expression.h"

namespace coppice {

/// UserError::bad_file at `where` for values of another kind than the name takes, here and below.
Json function_value(const TemplateNode& node, const std::vector<Json>& arguments, const TemplateScope& scope,
                    const std::string& where);
/// Of a method or a filter; the value it is called on comes first.
Json call_value(const std::string& name, const std::vector<Json>& values, const std::string& where);
/// "is NAME", but for defined and undefined.
bool passes_test(const std::string& name, const Json& value);

/// Refuses more bytes than a template may give.
void check_template_size(size_t bytes, const std::string& where);

}  // namespace coppice
