// What differs between two corpora, in words.
#include "src/corpus/run/identity_difference.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

namespace coppice {
namespace {

/// An identity of one source and steps of these options.
Json identity(const std::vector<std::pair<std::string, std::string>>& steps) {
  Json list = Json::array();
  for (const auto& [name, options] : steps)
    list.push_back({{"name", name},
                    {"kind", "k"},
                    {"only", Json::array()},
                    {"options", options_json(options)},
                    {"inputs", {"abc"}},
                    {"fingerprint", options}});
  return {{"sources", {{{"name", "a"}, {"kind", ""}}}},
          {"steps", list},
          {"files", 1},
          {"values", "all"},
          {"doc_timeout_s", 10.0},
          {"keep_removed_text", false},
          {"names_sha256", "x"}};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("identity: options out of their TOML, those of tables below by their place") {
    CHECK(options_json("min_words = 50\nrules = [\"a = b\"]\n\n[data.step.keep]\nen = 0.65\n\n[[data.step.pattern]]\n"
                       "name = \"A\"\n\n[[data.step.pattern]]\nname = \"B\"\n") ==
          Json::parse(R"({"min_words":"50","rules":"[\"a = b\"]","keep.en":"0.65","pattern.1.name":"\"A\"",)"
                      R"("pattern.2.name":"\"B\""})"));
    CHECK(options_json("") == Json::object());
  }

  TEST_CASE("identity: the first difference names step and option with both values") {
    const Json before = identity({{"x", "m = 1\n"}, {"q", "min = 50\n[data.step.keep]\nen = 0.65\n"}});
    const auto difference = [&](const Json& now) { return identity_difference(before, now); };
    CHECK(difference(identity({{"x", "m = 1\n"}, {"q", "min = 40\n[data.step.keep]\nen = 0.65\n"}})) ==
          "step 2 'q': min was 50, is 40");
    CHECK(difference(identity({{"x", "m = 1\n"}, {"q", "min = 50\n[data.step.keep]\nen = 0.65\nfr = 0.5\n"}})) ==
          "step 2 'q': keep.fr was not set, is 0.5");
    CHECK(difference(identity({{"x", "m = 1\n"}, {"q", "min = 50\n"}})) == "step 2 'q': keep.en was 0.65, is not set");
    CHECK(difference(identity({{"q", "min = 50\n[data.step.keep]\nen = 0.65\n"}, {"x", "m = 1\n"}})) ==
          "step 1 'q' stood elsewhere");
    CHECK(identity_difference(identity({{"x", "m = 50.0\n"}}), identity({{"x", "m = 40.5\n"}})) ==
          "step 1 'x': m was 50, is 40.5");
    CHECK(difference(identity({{"x", "m = 1\n"}})) == "step 2 'q' was there, is gone");
    Json other = before;
    other["steps"][0]["inputs"] = {"abd"};
    CHECK(difference(other) == "step 1 'x': a file that it reads was abc, is abd");
    other["steps"][0]["inputs"] = Json::array();
    CHECK(difference(other) == "step 1 'x': a file that it reads was abc, is not set");
    other = before;
    other["sources"][0]["kind"] = "warc";
    CHECK(difference(other) == "source 1 'a': kind was nothing, is warc");
    other = before;
    other["files"] = 2;
    CHECK(difference(other) == "input files were 1, are 2");
    Json older = before;  // without options
    for (Json& step : older["steps"]) step.erase("options"), step.erase("inputs");
    CHECK(identity_difference(older, before) == "step 1 'x': m was not set, is 1");
  }

  TEST_CASE("identity: files that came and went by their names") {
    CHECK(files_difference({"a", "b"}, {"a", "b"}).empty());
    CHECK(files_difference({"a", "b"}, {"b"}) == "a was there, is gone");
    CHECK(files_difference({"a", "b"}, {"a"}) == "b was there, is gone");
    CHECK(files_difference({"b"}, {"a", "b"}) == "a was not there");
    CHECK(files_difference({}, {"a"}) == "a was not there");
  }
}

}  // namespace coppice
