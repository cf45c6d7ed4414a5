// What stands between {{ and }} of a template (text_template.h), read once and worked out for every document.
#pragma once

#include <cstddef>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"

namespace coppice {

inline constexpr size_t kMaxTemplateText = size_t{64} << 20;  // bytes that a template may give

struct TemplateNode {
  enum Step { literal, list, field, member, slice, method, filter, join_text, add, choose, defined } step = literal;
  Json value = {};        // literal; member: name or position; slice: [from, to], null = open
  std::string name = {};  // field, method, filter
  std::vector<std::shared_ptr<const TemplateNode>> parts = {};
};

/// Reads one expression from `at`, which stands behind "{{" and afterwards behind "}}". UserError::bad_file at `where`.
std::shared_ptr<const TemplateNode> parse_expression(std::string_view source, size_t& at, const std::string& where);

/// The expression's value over one document's fields. UserError::bad_file at `where`.
Json expression_value(const TemplateNode& node, const Json& document, const std::string& where);

}  // namespace coppice
