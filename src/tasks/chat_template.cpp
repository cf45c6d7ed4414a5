#include "src/tasks/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "src/base/errors.h"
#include "src/tasks/python_text.h"
#include "src/tasks/template_calls.h"
#include "src/tasks/template_expression.h"
#include "src/tasks/template_lexer.h"
#include "src/tasks/template_tags.h"
#include "src/tasks/text_template.h"

namespace coppice {
namespace {

using Part = ChatTemplatePart;
using Parts = std::vector<Part>;

constexpr int kMaxNesting = 32;
constexpr std::string_view kEndSet[] = {"endset"}, kEndGeneration[] = {"endgeneration"};
constexpr uint64_t kBudget = uint64_t{256} << 20;  // bytes of all values on the way: less than a second

/// First word of a statement, and what stands behind it.
std::pair<std::string_view, std::string_view> split_word(std::string_view statement) {
  const size_t end = std::min(statement.size(), statement.find_first_of(" \t\n"));
  return {statement.substr(0, end), strip_left(statement.substr(end))};
}

/// Puts what stands inside statements into them.
class Reader {
 public:
  Reader(std::vector<TemplateTag> tags, const std::string& where) : tags_(std::move(tags)), where_(where) {}

  Parts whole() { return parts_until({}); }

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    throw UserError::bad_file(where_, fmt::format("template: {}", message));
  }

  /// Up to a statement of one of these words, which is the next tag then; of none: up to the end.
  Parts parts_until(std::span<const std::string_view> words) {
    if (++nesting_ > kMaxNesting) refuse(fmt::format("nested deeper than {}", kMaxNesting));
    Parts parts;
    for (; next_ < tags_.size(); ++next_) {
      TemplateTag& tag = tags_[next_];
      if (tag.kind != TemplateTag::statement) {
        parts.push_back({tag.kind == TemplateTag::text ? Part::text : Part::output, std::move(tag.source), {}});
        continue;
      }
      const std::string statement = tag.source;
      const auto [word, rest] = split_word(statement);
      if (std::ranges::find(words, word) != words.end()) break;
      add_statement(word, rest, parts);
    }
    if (next_ == tags_.size() && !words.empty()) refuse(fmt::format("no {{% {} %}}", words.back()));
    --nesting_;
    return parts;
  }

  /// What stands behind the tag that is next, up to one of `words`.
  Parts body(std::span<const std::string_view> words) {
    ++next_;
    return parts_until(words);
  }

  std::string_view word_here() const { return split_word(tags_[next_].source).first; }

  void add_statement(std::string_view word, std::string_view rest, Parts& parts) {
    constexpr std::array<std::string_view, 3> kIfWords = {"elif", "else", "endif"};
    constexpr std::array<std::string_view, 2> kForWords = {"else", "endfor"};
    constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kUnread = {
        {{"macro", "endmacro"}, {"call", "endcall"}, {"filter", "endfilter"}}};
    if (word == "if") {
      Part part{Part::choice, {}, {}};
      part.branches.push_back({std::string(rest), body(kIfWords)});
      while (word_here() != "endif") {
        const std::string statement = tags_[next_].source;
        const auto [branch, condition] = split_word(statement);
        if (branch == "else")
          part.branches.push_back({std::nullopt, body(std::span(kIfWords).last(1))});
        else
          part.branches.push_back({std::string(condition), body(kIfWords)});
      }
      parts.push_back(std::move(part));
    } else if (word == "for") {
      Part part{Part::loop, std::string(rest), {}};
      part.branches.push_back({std::nullopt, body(kForWords)});
      if (word_here() == "else") part.branches.push_back({std::nullopt, body(std::span(kForWords).last(1))});
      parts.push_back(std::move(part));
    } else if (word == "set" && rest.find('=') != std::string_view::npos) {
      parts.push_back({Part::set, std::string(rest), {}});
    } else if (word == "set") {
      Part part{rest.find('|') == std::string_view::npos ? Part::capture : Part::unread, std::string(rest), {}};
      part.branches.push_back({std::nullopt, body(kEndSet)});
      parts.push_back(std::move(part));
    } else if (word == "generation") {  // marks what a model learns from
      for (Part& part : body(kEndGeneration)) parts.push_back(std::move(part));
    } else if (const auto row = std::ranges::find(kUnread, word, [](const auto& one) { return one.first; });
               row != kUnread.end()) {
      body(std::span(&row->second, 1));
      if (word != "macro") parts.push_back({Part::unread, std::string(word), {}});  // a macro's call is refused
    } else if (word == "break" || word == "continue") {
      parts.push_back({Part::unread, std::string(word), {}});
    } else {
      refuse(fmt::format("'{{% {} %}}' is not part of the Jinja that coppice reads", printable(word)));
    }
  }

  std::vector<TemplateTag> tags_;
  const std::string& where_;
  size_t next_ = 0;
  int nesting_ = 0;
};

/// Runs the parts over variables.
class Runner {
 public:
  Runner(TemplateScope& scope, const std::string& where) : scope_(scope), where_(where) {}

  void run(const Parts& parts, std::string& out) {
    for (const Part& part : parts) {
      scope_.charge(nullptr, where_);  // a step
      switch (part.kind) {
        case Part::text:
          out += part.source;
          break;
        case Part::output:
          if (const Json value = value_of(*parse_expression(part.source, where_)); !value.is_discarded())
            out += text_of(value, where_);
          break;
        case Part::set:
          assign(parse_assignment(part.source, where_));
          break;
        case Part::capture: {
          std::string text;
          run(part.branches[0].parts, text);
          scope_.charge(text, where_);
          scope_.set(part.source, text);
          break;
        }
        case Part::choice:
          choose(part, out);
          break;
        case Part::loop:
          loop(part, out);
          break;
        case Part::unread:
          throw UserError::bad_file(where_,
                                    fmt::format("template: '{{% {} %}}' is not part of the Jinja that coppice reads",
                                                printable(part.source)));
      }
      check_template_size(out.size(), where_);
    }
  }

 private:
  Json value_of(const TemplateNode& node) { return expression_value(node, scope_, where_); }

  void assign(const TemplateAssignment& assignment) {
    Json value = value_of(*assignment.value);
    if (assignment.member.empty()) return scope_.set(assignment.name, std::move(value));
    Json* const space = scope_.find_own(assignment.name);
    if (space == nullptr || !space->is_object())
      throw UserError::bad_file(where_, fmt::format("template: '{}' is no namespace", printable(assignment.name)));
    (*space)[assignment.member] = std::move(value);
  }

  void choose(const Part& part, std::string& out) {
    for (const Part::Branch& branch : part.branches)
      if (!branch.condition || is_true(value_of(*parse_expression(*branch.condition, where_))))
        return run(branch.parts, out);
  }

  void loop(const Part& part, std::string& out) {
    const TemplateLoop head = parse_loop(part.source, where_);
    const Json over = value_of(*head.over);
    if (!over.is_array()) throw UserError::bad_file(where_, "template: a 'for' over something that is no list");
    std::vector<Json> elements;
    for (const Json& element : over) {
      scope_.enter();
      scope_.set(head.name, element);
      if (!head.condition || is_true(value_of(*head.condition))) elements.push_back(element);
      scope_.leave();
    }
    const auto size = static_cast<int64_t>(elements.size());
    for (int64_t i = 0; i < size; ++i) {
      const auto at = [&](int64_t place) { return elements[static_cast<size_t>(place)]; };
      Json here = {{"index0", i}, {"index", i + 1}, {"first", i == 0}, {"last", i + 1 == size}, {"length", size}};
      if (i > 0) here["previtem"] = at(i - 1);
      if (i + 1 < size) here["nextitem"] = at(i + 1);
      scope_.enter();
      scope_.set(head.name, at(i));
      scope_.set("loop", std::move(here));
      run(part.branches[0].parts, out);
      scope_.leave();
    }
    if (size == 0 && part.branches.size() > 1) run(part.branches[1].parts, out);
  }

  TemplateScope& scope_;
  const std::string& where_;
};

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, std::string where) : where_(std::move(where)) {
  check_template_source(source, where_);
  parts_ = Reader(split_template(source, where_), where_).whole();
}

std::string ChatTemplate::render(const Json& variables, const std::tm& now) const {
  TemplateScope scope(variables, /*strict=*/false, kBudget);
  scope.now = now;
  for (const char* function : {"namespace", "range", "raise_exception", "strftime_now"})
    scope.set(function, true);  // templates ask whether it is defined
  std::string text;
  Runner(scope, where_).run(parts_, text);
  return text;
}

}  // namespace coppice
