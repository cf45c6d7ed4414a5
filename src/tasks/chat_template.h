// A chat template: Jinja that a model brings along, which writes messages as the model was trained to see them
// (chat_template of tokenizer_config.json, chat_template.jinja, tokenizer.chat_template of a GGUF). Read is the part
// that writes a conversation, with transformers' settings (trim_blocks, lstrip_blocks): if, for, set, and the
// expressions of text_template.h; tags and expressions in branches that are not taken (tools, images) are passed over
// unread. What is reached and not read is refused by its name. https://jinja.palletsprojects.com/en/stable/templates/
#pragma once

#include <ctime>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/json.h"

namespace coppice {

/// A piece of a template: text, {{ expression }}, or a statement with what stands inside it.
struct ChatTemplatePart {
  enum Kind { text, output, set, capture, choice, loop, unread } kind = text;
  std::string source;  // text and output: what it says; set: "x = y"; capture: a name; loop: "x in y"; unread: its name
  struct Branch {
    std::optional<std::string> condition;  // none: else, and the body of capture and loop
    std::vector<ChatTemplatePart> parts;
  };
  std::vector<Branch> branches;
};

class ChatTemplate {
 public:
  /// UserError::bad_file at `where` for a statement that is not read or not ended, and above 64 KiB.
  ChatTemplate(std::string_view source, std::string where);

  /// The text for these variables, an object; `now` is what strftime_now() says. UserError::bad_file for an expression
  /// that is not read or does not fit its values, for what the template itself refuses, and for more than 64 MiB or
  /// many steps on the way.
  std::string render(const Json& variables, const std::tm& now) const;
  const std::string& where() const { return where_; }

 private:
  std::string where_;
  std::vector<ChatTemplatePart> parts_;
};

}  // namespace coppice
