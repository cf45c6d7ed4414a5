// Licences by their texts, by SPDX lines, and in folders.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/corpus/code/licence_folders.h"
#include "src/corpus/code/licence_text.h"

using namespace coppice;

namespace {

std::map<std::string, std::string> licence_texts() {
  std::ifstream lines(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/licences.jsonl");
  std::map<std::string, std::string> texts;
  for (std::string line; std::getline(lines, line);) {
    const Json licence = parse_json(line, "licences.jsonl");
    texts[licence["id"]] = licence["text"];
  }
  return texts;
}

/// The text with its lines filled anew, as a comment would hold it.
std::string refilled(const std::string& text) {
  std::string out = " * ";
  size_t column = 0;
  for (const char c : text) {
    if (c == '\n' || (c == ' ' && column > 60)) {
      out += "\n * ";
      column = 0;
    } else {
      out += c;
      ++column;
    }
  }
  return out;
}

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const size_t at = text.find(what);
  REQUIRE(at != std::string::npos);
  return text.replace(at, what.size(), by);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("licence texts: each is what it is, whoever holds the copyright") {
    const auto texts = licence_texts();
    CHECK(texts.size() == known_licences().size());
    for (const auto& [id, text] : texts) {
      CHECK_MESSAGE(match_licence_text(text).id == id, id);
      CHECK_MESSAGE(match_licence_text(text).dice == 1, id);
      const std::string others = "Copyright (c) 2019-2024 Jane Doe <jane@example.org>\nAll rights reserved.\n\n" + text;
      CHECK_MESSAGE(match_licence_text(others).id == id, id);
      CHECK_MESSAGE(match_licence_text(others).dice >= 0.99, id);
      CHECK_MESSAGE(licence_of_text(refilled(text), 0.95) == id, id);
    }
  }

  TEST_CASE("licence texts: the forms that stand in repositories") {
    const auto texts = licence_texts();
    const std::string& apache = texts.at("Apache-2.0");
    CHECK(licence_of_text(apache.substr(0, apache.find("APPENDIX")), 0.95) == "Apache-2.0");
    CHECK(licence_of_text(replaced(texts.at("MIT"), "MIT License", "The MIT License (MIT)"), 0.95) == "MIT");
    CHECK(licence_of_text(replaced(texts.at("BSD-3-Clause"), "the copyright holder nor", "Example Corporation nor"),
                          0.95) == "BSD-3-Clause");
  }

  TEST_CASE("licence texts: lists with other marks") {
    std::string text = licence_texts().at("BSD-3-Clause");
    for (const auto& [number, mark] : {std::pair("1. ", " * "), {"2. ", " * "}, {"3. ", " (c) "}})
      text = replaced(text, number, mark);
    CHECK(match_licence_text(text).dice == 1);
  }

  TEST_CASE("licence texts: altered ones are refused") {
    const auto texts = licence_texts();
    const std::string commons =
        "The Software is provided to you under the License, as defined below, subject to the following condition. "
        "Without "
        "limiting other conditions, the grant of rights under the License will not include the right to Sell the "
        "Software.\n";
    const std::string research =
        "\nThe Software may be used by members of universities for research and teaching alone; companies ask the "
        "authors.\n";
    for (const char* id : {"MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Zlib", "0BSD", "MIT-0", "Unlicense"}) {
      CHECK_MESSAGE(licence_of_text(commons + texts.at(id), 0.95) == "NOASSERTION", id);
      CHECK_MESSAGE(licence_of_text(texts.at(id) + research, 0.95) == "NOASSERTION", id);
      CHECK_MESSAGE(licence_of_text(texts.at(id).substr(0, texts.at(id).size() * 4 / 5), 0.95) == "NOASSERTION", id);
      CHECK_MESSAGE(licence_of_text(texts.at(id) + texts.at("GPL-2.0"), 0.95) != id, id);
    }
    for (const char* id : {"MIT", "BSD-3-Clause", "Apache-2.0", "CC0-1.0"})
      CHECK_MESSAGE(licence_of_text(texts.at(id) + "Not for commercial use.\n", 0.95) == "NOASSERTION", id);
    CHECK(match_licence_text(texts.at("MIT") + research).dice >= 0.95);  // so short a text: its words decide
    CHECK(licence_of_text(texts.at("JSON"), 0.95) == "JSON");            // MIT and one line more
    CHECK(licence_of_text("", 0.95) == "NOASSERTION");
    CHECK(licence_of_text("MIT", 0.95) == "NOASSERTION");
  }

  TEST_CASE("licence lines: SPDX identifiers in the first 4 kB") {
    CHECK(find_spdx_line("// SPDX-License-Identifier: MIT\nint a;") == "MIT");
    CHECK(find_spdx_line("/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */") == "(GPL-2.0 OR MIT)");
    CHECK(find_spdx_line("<!-- SPDX-License-Identifier: MIT -->\r\n") == "MIT");
    CHECK(find_spdx_line("# SPDX-License-Identifier:   ") == "");
    CHECK(find_spdx_line("int a;") == "");
    CHECK(find_spdx_line(std::string(4000, ' ') + "SPDX-License-Identifier: MIT") == "MIT");
    CHECK(find_spdx_line(std::string(4096, ' ') + "SPDX-License-Identifier: MIT") == "");
  }

  TEST_CASE("licence files: names") {
    for (const char* name : {"LICENSE", "license", "Licence.txt", "COPYING", "COPYING.LESSER", "LICENSE-MIT",
                             "UNLICENSE", "license_apache.md", "LICENSE.MIT", "LICENSE-APACHE-2.0", "LICENSE_1_0.txt",
                             "COPYING.LIB", "license.rst", "License.HTML", "LICENSE-2.0", "copying.bsd"})
      CHECK_MESSAGE(is_licence_file(name), name);
    for (const char* name :
         {"licenses", "LICENSED", "my-license", "README", "license.go", "license_manager.py", "copying.c", "COPYING.H",
          "License.java", "license-check.mjs", "license.m", "license.ipynb", "license_test.go", "license.php",
          "license.json", "license.svg", "license.min.css", "licence.tex.in"})
      CHECK_FALSE_MESSAGE(is_licence_file(name), name);
  }

  TEST_CASE("licence files: the nearest folder above decides; links are not followed") {
    namespace fs = std::filesystem;
    const auto texts = licence_texts();
    const fs::path root = fs::temp_directory_path() / "coppice-licence-folders";
    fs::remove_all(root);
    fs::create_directories(root / "one/src/deep");
    fs::create_directories(root / "one/lib");
    fs::create_directories(root / "two");
    write_file_atomically(root / "one/LICENSE-MIT", texts.at("MIT"));
    write_file_atomically(root / "one/LICENSE-APACHE", texts.at("Apache-2.0"));
    write_file_atomically(root / "one/lib/COPYING", texts.at("GPL-3.0"));
    write_file_atomically(root / "two/LICENSE.md", "Ask us.");
    fs::create_symlink(root / "one/LICENSE-MIT", root / "one/src/LICENSE");
    const LicenceFolders folders(root, 0.95);
    using Ids = std::vector<std::string>;
    CHECK(folders.of("one/src/deep/a.c") == Ids{"Apache-2.0", "MIT"});
    CHECK(folders.of("one/a.c") == Ids{"Apache-2.0", "MIT"});
    CHECK(folders.of("one/lib/a.c") == Ids{"GPL-3.0"});
    CHECK(folders.of("two/a.c") == Ids{"NOASSERTION"});
    CHECK(folders.of("three/a.c").empty());
    CHECK(folders.of("a.c").empty());
    CHECK(folders.fingerprint() != LicenceFolders().fingerprint());
    fs::remove_all(root);
    CHECK_THROWS_AS(LicenceFolders(root, 0.95), UserError);
  }
}
