// License, name and origin out of a model card or a license file, and into a card of ours.
#include "src/checkpoint/model_card.h"

#include <doctest/doctest.h>

#include "tests/caught.h"
#include "tests/scratch_folder.h"

namespace coppice {
namespace {

GgufGeneral card(const std::string& front) { return parse_model_card("---\n" + front + "---\n# A model\n", "card"); }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("model card: license, name and base models out of the front matter") {
    const GgufGeneral general = card(
        "language:\n- en\nlicense: other\nlicense_name: little-license\nlicense_link: https://example.org/license\n"
        "model_name: Little 1B\nname: another\nbase_model:\n- org/Large-7B\n- https://example.org/more/Larger\n- "
        "Plain\n"
        "- 7\nmodel-index:\n- name: x\n  results: [{value: 1.5}]\n");
    CHECK(general == GgufGeneral{.name = "Little 1B",
                                 .license = "other",
                                 .license_name = "little-license",
                                 .license_link = "https://example.org/license",
                                 .base_models = {{.name = "Large-7B", .organization = "org"},
                                                 {.name = "Larger", .repo_url = "https://example.org/more/Larger"},
                                                 {.name = "Plain"}}});
    CHECK(card("license: apache-2.0\n").license == "apache-2.0");
    CHECK(card("license: [mit, apache-2.0]\n").license == "mit,apache-2.0");
    CHECK(card("name: Little\nbase_model: org/Large\n").name == "Little");
    CHECK((card("name: Little\nbase_model: org/Large\n").base_models ==
           std::vector<GgufReference>{{.name = "Large", .organization = "org"}}));
    CHECK(parse_model_card("\xEF\xBB\xBF---\r\nlicense: mit\r\n---\r\ntext\r\n", "card").license == "mit");
  }

  TEST_CASE("model card: what is no text of one line, or no front matter, says nothing") {
    CHECK(card("license: 7\nname: [1, 2]\nbase_model: {name: x}\n") == GgufGeneral{});
    CHECK(card("license: \"mit\\nand more\"\n").license.empty());
    CHECK(card("license: \"\\e[31mred\"\n").license.empty());
    CHECK(card("license: " + std::string(1025, 'x') + "\n").license.empty());
    CHECK(card("license: other\nlicense_link: LICENSE\n").license_link.empty());  // that file stays behind
    CHECK(card("- license\n") == GgufGeneral{});
    CHECK(card("") == GgufGeneral{});
    for (const char* text : {"", "---", "# Model\n\n---\nlicense: mit\n---\n", "----\nlicense: mit\n---\n"})
      CHECK(parse_model_card(text, "card") == GgufGeneral{});
  }

  TEST_CASE("model card: a license file speaks where the card does not") {
    const ScratchFolder folder;
    CHECK(read_model_card(folder.path) == GgufGeneral{});
    folder.write("LICENSE.txt", "\n\n  # The Little License, version 3  \r\n\nYou may.\n");
    CHECK(read_model_card(folder.path) ==
          GgufGeneral{.license = "other", .license_name = "The Little License, version 3"});
    folder.write("LICENSE", "   Apache License\n        Version 2.0, January 2004\n");
    folder.write("README.md", "---\nmodel_name: Little\n---\n");
    CHECK(read_model_card(folder.path) == GgufGeneral{.name = "Little", .license = "apache-2.0"});
    folder.write("LICENSE",
                 "MIT License\n\nCopyright\n\nPermission is hereby granted, free of charge, to any person obtaining a "
                 "copy\nof this software and associated");
    CHECK(read_model_card(folder.path).license == "mit");
    folder.write("LICENSE", " \n");
    CHECK(read_model_card(folder.path).license.empty());
    folder.write("README.md", "---\nlicense: cc-by-4.0\n---\n");
    CHECK(read_model_card(folder.path).license == "cc-by-4.0");
  }

  TEST_CASE("model card: ours says the license and reads back as it was") {
    const GgufGeneral general{.name = "demo \"long\": #1",
                              .license = "other",
                              .license_name = "the little license",
                              .license_link = "https://example.org/license",
                              .base_models = {{.name = "Large", .organization = "org"}, {.name = "Larger"}}};
    const std::string text = model_card_text(general);
    CHECK(parse_model_card(text, "card") == general);
    CHECK(text.ends_with(
        "# demo \"long\": #1\n\nMade by coppice from org/Large, whose license is the little license.\n"));
    CHECK(model_card_text({.name = "demo", .base_models = {{.name = "Large"}}}).empty());
  }
}

TEST_SUITE("faults") {
  TEST_CASE("model card: one that is damaged or built to harm is said, and no reason to refuse a model") {
    const ScratchFolder folder;
    folder.write("LICENSE", "Apache License\nVersion 2.0\n");
    for (const std::string& front :
         {std::string("license: [mit\n"), "license: " + std::string(5000, '['),
          std::string("license: mit\nlicense: x\n"), std::string("license: !!python/object x\n"),
          "a: " + std::string(300'000, 'x') + "\n"}) {
      const std::string text = "---\n" + front + "---\n";
      CAPTURE(front.substr(0, 40));
      CHECK(caught([&] { parse_model_card(text, "card"); }).code == 3);
      folder.write("README.md", text);
      CHECK(read_model_card(folder.path) == GgufGeneral{.license = "apache-2.0"});
    }
    CHECK(caught([&] { parse_model_card("---\nlicense: mit\n", "card"); }).says("the line --- that ends"));
    std::filesystem::remove(folder / "README.md");
    std::filesystem::create_directory(folder / "README.md");
    CHECK(read_model_card(folder.path).license == "apache-2.0");
  }
}

}  // namespace coppice
