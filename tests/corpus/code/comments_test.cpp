// Comments of every language, and licence headers.
#include "src/corpus/code/comments.h"

#include <doctest/doctest.h>

#include <string>

using namespace coppice;

namespace {

const CommentSyntax& syntax(std::string_view language) { return find_language(language)->comments; }

/// The comments, one behind the other with '|' between.
std::string comments(std::string_view language, std::string_view code) {
  std::string all;
  for (const Comment& comment : find_comments(code, syntax(language)))
    all += (all.empty() ? "" : "|") + std::string(code.substr(comment.begin, comment.end - comment.begin));
  return all;
}

std::string without_header(std::string_view language, std::string code) {
  cut_licence_header(code, syntax(language));
  return code;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("comments: strings do not open them") {
    for (const char* language :
         {"C", "C++", "Objective-C", "Java", "JavaScript", "TypeScript", "C#", "Go", "Rust", "Swift", "Kotlin"})
      CHECK_MESSAGE(
          comments(language, "a = \"// no\"; // yes\n/* one\n two */ b \"\\\"/*\" c") == "// yes|/* one\n two */",
          language);
    CHECK(comments("C", "char q = '\"'; // yes") == "// yes");
    CHECK(comments("C", "\"not closed // no\nx // yes") == "// yes");
    CHECK(comments("C", "/* open") == "/* open");
    CHECK(comments("JavaScript", "`// no\n${a} /* no */` // yes") == "// yes");
    CHECK(comments("Go", "`\\` // yes") == "// yes");
    CHECK(comments("Java", "\"\"\"\n// no\n\"\"\" // yes") == "// yes");
  }

  TEST_CASE("comments: nested where the language nests them") {
    CHECK(comments("Rust", "/* a /* b */ c */ d") == "/* a /* b */ c */");
    CHECK(comments("Swift", "/* a /* b */ c */ d") == "/* a /* b */ c */");
    CHECK(comments("Kotlin", "/* a /* b */ c */ d") == "/* a /* b */ c */");
    CHECK(comments("C", "/* a /* b */ c */ d") == "/* a /* b */");
    CHECK(comments("Rust", "fn f<'a>(x: &'a str) {} // yes") == "// yes");
  }

  TEST_CASE("comments: of scripts") {
    CHECK(comments("Python", "x = '#' # yes\n") == "# yes");
    CHECK(comments("Python", "def f():\n  \"\"\"What\n  it does.\"\"\"\n  return \"\"\"# no\"\"\"") ==
          "\"\"\"What\n  it does.\"\"\"");
    CHECK(comments("Python", "'''all'''\nx") == "'''all'''");
    CHECK(comments("Shell", "#!/bin/sh\necho $# ${#a} '# no\n' \"# no\" a#b; # yes") == "#!/bin/sh|# yes");
    CHECK(comments("Shell", "echo '\\' # yes") == "# yes");
    CHECK(comments("Ruby", "a \"#{x}\" # yes\n=begin\nall of it\n=end\n =begin") == "# yes|=begin\nall of it\n=end");
  }

  TEST_CASE("comments: the share counts signs and text, and takes any input in linear time") {
    CHECK(comment_share("ab//cd\nef", syntax("C")) == doctest::Approx(4.0 / 9).epsilon(1e-12));
    CHECK(comment_share("", syntax("C")) == 0);
    const size_t many = size_t{1} << 20;
    std::string nested;
    for (size_t i = 0; i < many / 2; ++i) nested += "/*";
    CHECK(comment_share(nested, syntax("Rust")) == 1);
    CHECK(comment_share(nested + "*/", syntax("Rust")) == 1);
    CHECK(comment_share(std::string(many, '"'), syntax("Python")) <= 1);
    CHECK(comment_share(std::string(many, '\\'), syntax("Shell")) == 0);
    CHECK(comment_share("\"" + std::string(many, '\\'), syntax("C")) == 0);
    CHECK(comment_share(std::string(many, '#'), syntax("Shell")) == 1);
    CHECK(comment_share("=begin\n" + std::string(many, '\n'), syntax("Ruby")) == 1);
  }

  TEST_CASE("licence headers: cut with the blank lines behind them, nothing else") {
    CHECK(without_header("C", "// Copyright 2020 A\n// All rights reserved.\n\n// What it does.\nint a;\n") ==
          "// What it does.\nint a;\n");
    CHECK(without_header("C", "/* Licensed under MIT */\n\nint a;\n") == "int a;\n");
    CHECK(without_header("C", "/* (c) A */\n// SPDX-License-Identifier: MIT\nint a;\n") == "int a;\n");
    CHECK(without_header("C", "// What it does.\n// Copyright 2020 A\nint a;\n") == "int a;\n");  // one block
    CHECK(without_header("C", "// What it does.\n\n// Copyright 2020 A\nint a;\n") ==
          "// What it does.\n\n// Copyright 2020 A\nint a;\n");
    CHECK(without_header("C", "int a;  // Copyright 2020 A\n") == "int a;  // Copyright 2020 A\n");
    CHECK(without_header("C", "/* license */ int a;\n") == "/* license */ int a;\n");
    CHECK(
        without_header("Python", "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\n# Copyright 2020 A\n\nimport a\n") ==
        "#!/usr/bin/env python3\n# -*- coding: utf-8 -*-\nimport a\n");
    CHECK(without_header("Python", "\"\"\"License: MIT\"\"\"\nimport a\n") == "import a\n");
    CHECK(without_header("Shell", "# License\n") == "");
    CHECK(without_header("C", "") == "");
  }
}
