// A chat template's source into its tags. Private to src/tasks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice {

struct TemplateTag {
  enum Kind { text, output, statement } kind = text;
  std::string source;  // text: as it is printed; otherwise what stands inside
};
/// Texts and tags in their order, without comments and the white space that tags take away. UserError::bad_file at
/// `where` for a tag without its end.
std::vector<TemplateTag> split_template(std::string_view source, const std::string& where);

}  // namespace coppice
