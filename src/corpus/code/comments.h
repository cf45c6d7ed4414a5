// Comments of source code: how much of it they are, and the one at its top that holds the licence.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "src/corpus/code/languages.h"

namespace coppice {

struct Comment {
  size_t begin = 0, end = 0;  // bytes, its signs included; without the end of its line
};

/// In their order. Strings are passed over; one over several lines that is raw only by what stands before it (R"(...)"
/// of C++, r#"..."# of Rust) is read line by line.
std::vector<Comment> find_comments(std::string_view code, const CommentSyntax& syntax);

/// Bytes in comments / bytes; 0 of nothing.
double comment_share(std::string_view code, const CommentSyntax& syntax);

/// Cuts comments that speak of licence or copyright off the top, behind a line of #! or of the encoding: whole blocks,
/// where lines of comments that follow each other are one block. True where something went.
bool cut_licence_header(std::string& code, const CommentSyntax& syntax);

}  // namespace coppice
