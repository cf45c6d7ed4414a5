// Members of a document's metadata and of its record: found, replaced, and left as they stand.
#include "src/text/document_metadata.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

namespace coppice {
namespace {

std::string set(const std::string& metadata, std::string_view name, const Json& value) {
  Document document{.metadata = metadata};
  set_metadata(document, name, value);
  return document.metadata;
}

std::string text_in(const std::string& metadata, std::string_view name) {
  return metadata_text({.metadata = metadata}, name);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("metadata: members are found beside numbers that JSON does not have, which stay as they are") {
    const std::string odd = R"("n":1e400 , "x":NaN,"url":"https://a.org/","y":-Infinity,"z":[NaN,{"url":"no"}])";
    CHECK(text_in(odd, "url") == "https://a.org/");
    CHECK_FALSE(find_metadata({.metadata = odd}, "x").has_value());
    CHECK_FALSE(find_metadata({.metadata = odd}, "z").has_value());
    CHECK(set(odd, "url", "u") == R"("n":1e400 , "x":NaN,"url":"u","y":-Infinity,"z":[NaN,{"url":"no"}])");
    CHECK(set(odd, "n", 1) == R"("n":1 , "x":NaN,"url":"https://a.org/","y":-Infinity,"z":[NaN,{"url":"no"}])");
    CHECK(set(odd, "z", {1, 2}) == R"("n":1e400 , "x":NaN,"url":"https://a.org/","y":-Infinity,"z":[1,2])");
    CHECK(set(odd, "language", "en") == odd + R"(,"language":"en")");
  }

  TEST_CASE("metadata: names as JSON writes them, values of every kind, the last of several") {
    CHECK(set("", "a", "b") == R"("a":"b")");
    CHECK(text_in(R"("a":"\"b\":1,}]","b":"c")", "b") == "c");
    CHECK(text_in(R"("source_url":"no","url" : "yes")", "url") == "yes");
    CHECK(text_in(R"("\u0075rl":"yes")", "url") == "yes");
    CHECK(text_in(R"("url":"a","url":"b")", "url") == "b");
    CHECK(set(R"("url":"a","n":0,"url":"b")", "url", "c") == R"("url":"c","n":0)");
    CHECK(*find_metadata({.metadata = R"("a":{"b":["}"]},"c":null)"}, "a") == Json({{"b", {"}"}}}));
    CHECK(find_metadata({.metadata = R"("a":{"b":1},"c":null)"}, "c")->is_null());
    CHECK_FALSE(find_metadata({.metadata = R"("a":{"b":1})"}, "b").has_value());
    CHECK(text_in(R"("a":1)", "a") == "");
    for (const char* broken : {"\"a", "\"a\"", "\"a\":", "\"a\":[", "a:1", ",,", "\"b\":1,\"a\""})
      CHECK_MESSAGE(text_in(broken, "a") == "", broken);
  }

  TEST_CASE("metadata: what a record says under a name: its metadata first, then beside its text") {
    const Document both{.fields = R"("url":"beside","date":"2020","n":[1])", .metadata = R"("url":"in","date":null)"};
    CHECK(member_text(both, "url") == "in");
    CHECK(member_text(both, "date") == "2020");
    CHECK(member_text(both, "title") == "");
    CHECK(*find_member(both, {"n"}) == Json({1}));
    CHECK(*find_member(both, {"link", "url"}) == "in");
    CHECK_FALSE(find_member(both, {"title"}).has_value());
    CHECK(member_text({.fields = R"("url":"beside")", .metadata = R"("url":"")"}, "url") == "beside");
    CHECK(member_text({.fields = R"("url":"beside")", .metadata = R"("url":1)"}, "url") == "beside");
  }
}

}  // namespace coppice
