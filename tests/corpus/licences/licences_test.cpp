// Licence expressions, marks of pages, tables of addresses.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/corpus/licences/address_table.h"
#include "src/corpus/licences/page_marks.h"
#include "src/corpus/licences/spdx.h"

using namespace coppice;

namespace {

bool allowed(std::string_view expression, const std::vector<std::string>& patterns) {
  return is_licence_allowed(expression, [&](std::string_view id) { return matches_licence(patterns, id); });
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("licences: expressions, one side of OR, both of AND, WITH kept") {
    CHECK(allowed("MIT", {"MIT"}));
    CHECK(allowed("mit", {"MIT"}));
    CHECK_FALSE(allowed("MIT-0", {"MIT"}));
    CHECK(allowed("MIT OR GPL-3.0-only", {"MIT"}));
    CHECK_FALSE(allowed("MIT AND GPL-3.0-only", {"MIT"}));
    CHECK(allowed("GPL-3.0-only AND Zlib OR MIT", {"MIT"}));  // AND binds closer
    CHECK_FALSE(allowed("GPL-3.0-only AND (Zlib OR MIT)", {"MIT"}));
    CHECK(allowed("(MIT)and(Zlib)", {"MIT", "Zlib"}));
    CHECK(allowed("Apache-2.0 WITH LLVM-exception", {"Apache-2.0"}));
    CHECK(allowed("Apache-2.0 WITH LLVM-exception", {"apache-2.0 with llvm*"}));
    CHECK_FALSE(allowed("Apache-2.0", {"Apache-2.0 WITH LLVM-exception"}));
    CHECK(allowed("GPL-2.0+", {"GPL-2.0+"}));
    CHECK(allowed("LicenseRef-press-2025", {"LicenseRef-press-*"}));
    CHECK(allowed("CC-BY-4.0", {"CC-BY-?.0"}));
    CHECK_FALSE(allowed("CC-BY-SA-4.0", {"CC-BY-?.0"}));
    CHECK(allowed("The MIT licence, see LICENSE", {"The MIT*"}));  // no expression: as it stands
    CHECK_FALSE(allowed("MIT OR", {"MIT"}));
    CHECK_FALSE(allowed("(MIT", {"MIT"}));
    CHECK_FALSE(allowed("", {"MIT"}));
    CHECK_FALSE(allowed(std::string(100000, '(') + "MIT", {"MIT"}));
    CHECK(allowed(std::string(30, '(') + "MIT" + std::string(30, ')'), {"MIT"}));
  }

  TEST_CASE("licences: Creative Commons addresses") {
    CHECK(licence_of_address("https://creativecommons.org/licenses/by-sa/4.0/") == "CC-BY-SA-4.0");
    CHECK(licence_of_address("HTTP://www.CreativeCommons.org/licenses/by/3.0/deed.de") == "CC-BY-3.0");
    CHECK(licence_of_address("//creativecommons.org/licenses/by-nd-nc/1.0") == "CC-BY-NC-ND-1.0");
    CHECK(licence_of_address("https://creativecommons.org/publicdomain/zero/1.0/") == "CC0-1.0");
    CHECK(licence_of_address("https://creativecommons.org/publicdomain/mark/1.0/") == "CC-PDM-1.0");
    CHECK(licence_of_address("https://creativecommons.org/licenses/") == "");
    CHECK(licence_of_address("https://creativecommons.org/licenses/by/9.0/") == "");
    CHECK(licence_of_address("https://example.com/creativecommons.org/licenses/by/4.0/") == "");
    CHECK(licence_of_address("") == "");
  }

  TEST_CASE("licences: marks of pages, where they count") {
    const std::string by = "href='https://creativecommons.org/licenses/by/4.0/'";
    const std::string sa = "href='https://creativecommons.org/licenses/by-sa/4.0/'";
    const std::string filler(2000, ' ');
    using Ids = std::vector<std::string>;
    CHECK(find_page_marks("<body><a rel='nofollow LICENSE' " + by + ">" + filler).licences == Ids{"CC-BY-4.0"});
    CHECK(find_page_marks("<body><a " + by + ">" + filler).licences.empty());  // an article about licences
    CHECK(find_page_marks("<head><link " + by + "></head><body>" + filler).licences == Ids{"CC-BY-4.0"});
    CHECK(find_page_marks("<body><footer><a " + by + "></footer><a " + sa + ">" + filler).licences == Ids{"CC-BY-4.0"});
    CHECK(find_page_marks("<body>" + filler + "<a " + by + "><a " + sa + "><a " + by + ">").licences ==
          Ids{"CC-BY-4.0", "CC-BY-SA-4.0"});
    const PageMarks marks = find_page_marks(
        "<META NAME=Robots CONTENT='noindex, nofollow'><meta content=noai name=robots><meta name=tdm-reservation "
        "content=1>");
    CHECK(marks.robots == "noindex, nofollow; noai");
    CHECK(marks.tdm_reservation == "1");
    CHECK(page_license_json({"MIT"}) == "MIT");
    CHECK(page_license_json({"MIT", "Zlib"}).dump() == "[\"MIT\",\"Zlib\"]");
  }

  TEST_CASE("licences: domains with what is below them, addresses by their beginning") {
    AddressTable table;
    for (const char* entry : {"example.com", "www.example.com/a", "https://other.example/private/", "Shop.Example.org.",
                              "a.example/x?q=1", "10.0.0.1"})
      CHECK(table.add(entry));
    for (const char* entry : {"", "/path", "exa mple.com", "m\xC3\xBCnchen.example", "http://"})
      CHECK_FALSE(table.add(entry));
    table.sort();
    CHECK(table.size() == 5);  // one lies below another
    CHECK(table.holds("https://example.com/"));
    CHECK(table.holds("http://WWW.Example.com:8080/x#y"));
    CHECK(table.holds("https://user@a.b.example.com"));
    CHECK_FALSE(table.holds("https://badexample.com/"));
    CHECK_FALSE(table.holds("https://example.com.evil/"));
    CHECK(table.holds("https://other.example/private/x"));
    CHECK_FALSE(table.holds("https://other.example/private"));
    CHECK_FALSE(table.holds("https://www.other.example/private/x"));
    CHECK(table.holds("https://shop.example.org"));
    CHECK_FALSE(table.holds("https://example.org/"));
    CHECK(table.holds("https://a.example/x?q=12"));
    CHECK_FALSE(table.holds("https://a.example/x"));
    CHECK(table.holds("http://10.0.0.1/"));
    CHECK_FALSE(table.holds("mailto:x@example.com "));
    CHECK_FALSE(table.holds(""));
    CHECK_FALSE(AddressTable().holds("https://example.com"));
  }
}
