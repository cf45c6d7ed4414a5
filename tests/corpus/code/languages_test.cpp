// Languages by name and by content.
#include "src/corpus/code/languages.h"

#include <doctest/doctest.h>

#include <string>

using namespace coppice;

namespace {

std::string name_of(std::string_view path, std::string_view text = "") {
  const ProgrammingLanguage* found = language_of(path, text);
  return found == nullptr ? "" : std::string(found->name);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("code languages: by the ending of the name") {
    const std::pair<const char*, const char*> rows[] = {{"a.swift", "Swift"},
                                                        {"a.py", "Python"},
                                                        {"a.pyi", "Python"},
                                                        {"a.c", "C"},
                                                        {"a.cc", "C++"},
                                                        {"a.cpp", "C++"},
                                                        {"a.cxx", "C++"},
                                                        {"a.hpp", "C++"},
                                                        {"a.hh", "C++"},
                                                        {"a.cu", "C++"},
                                                        {"a.js", "JavaScript"},
                                                        {"a.mjs", "JavaScript"},
                                                        {"a.cjs", "JavaScript"},
                                                        {"a.jsx", "JavaScript"},
                                                        {"a.java", "Java"},
                                                        {"a.go", "Go"},
                                                        {"a.ts", "TypeScript"},
                                                        {"a.tsx", "TypeScript"},
                                                        {"a.cs", "C#"},
                                                        {"a.rs", "Rust"},
                                                        {"a.rb", "Ruby"},
                                                        {"a.kt", "Kotlin"},
                                                        {"a.kts", "Kotlin"},
                                                        {"a.sh", "Shell"},
                                                        {"a.bash", "Shell"},
                                                        {"src/deep/A.PY", "Python"},
                                                        {"a.txt", ""},
                                                        {"a.", ""},
                                                        {"py", ""},
                                                        {"dir.py/readme", ""},
                                                        {"", ""},
                                                        {"a.min.js", "JavaScript"}};
    for (const auto& [path, name] : rows) CHECK_MESSAGE(name_of(path) == name, path);
    CHECK(languages().size() == 14);
    for (const ProgrammingLanguage& row : languages()) CHECK(find_language(row.name) == &row);
    CHECK(find_language("objective-c")->name == "Objective-C");
    CHECK(find_language("COBOL") == nullptr);
  }

  TEST_CASE("code languages: by the interpreter where the name has no ending") {
    CHECK(name_of("bin/tool", "#!/bin/sh\n") == "Shell");
    CHECK(name_of("bin/tool", "#!/usr/bin/env bash\nx") == "Shell");
    CHECK(name_of("bin/tool", "#! /usr/bin/env -S python3.11 -u\n") == "Python");
    CHECK(name_of("bin/tool", "#!/usr/bin/ruby") == "Ruby");
    CHECK(name_of("bin/tool", "#!/usr/bin/env node\n") == "JavaScript");
    CHECK(name_of("bin/tool", "#!/usr/bin/perl\n") == "");
    CHECK(name_of("bin/tool", "#!\n/bin/sh") == "");
    CHECK(name_of("bin/tool", "#!/usr/bin/env") == "");
    CHECK(name_of("bin/tool", "echo") == "");
    CHECK(name_of("tool.txt", "#!/bin/sh\n") == "");
  }

  TEST_CASE("code languages: by content where an ending has several meanings") {
    CHECK(name_of("a.h", "int f(void);") == "C");
    CHECK(name_of("a.h", "typedef struct { int subclass, my_class; } t;") == "C");
    CHECK(name_of("a.h", "/** @code f(); @endcode */ int f(void);") == "C");
    CHECK(name_of("a.h", "/// @interfaces a@end @property_list") == "C");
    CHECK(name_of("a.h", "@interface A\n@end") == "Objective-C");
    CHECK(name_of("a.h", "x\n@end\n") == "Objective-C");
    CHECK(name_of("a.m", "% @interfaces #imported") == "");
    CHECK(name_of("a.m", "@implementation A") == "Objective-C");
    CHECK(name_of("a.h", "class A;") == "C++");
    CHECK(name_of("a.h", "template <int>") == "C++");
    CHECK(name_of("a.h", "namespace a {") == "C++");
    CHECK(name_of("a.h", "void f(std::string);") == "C++");
    CHECK(name_of("a.h", "struct A {\npublic:\n") == "C++");
    CHECK(name_of("a.h", "@interface A\n@end // class") == "Objective-C");
    CHECK(name_of("a.m", "#import <a.h>") == "Objective-C");
    CHECK(name_of("a.m", "@implementation A") == "Objective-C");
    CHECK(name_of("a.m", "function y = f(x)") == "");
    CHECK(name_of("a.ts", "<?xml version=\"1.0\"?><TS>") == "");
    CHECK(name_of("a.ts", "export const a = 1") == "TypeScript");
  }
}
