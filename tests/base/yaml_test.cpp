// What task files and model cards share; how scalars are typed stands in tests/tasks/task_file_test.cpp.
#include "src/base/yaml.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/caught.h"

namespace coppice {

TEST_SUITE("unit") {
  TEST_CASE("yaml: a document becomes JSON, tags that are asked for become text") {
    CHECK(parse_yaml("a: [1, 'x', {b: ~}]\nc: &y two\nd: *y\n", "f") ==
          Json{{"a", {1, "x", {{"b", nullptr}}}}, {"c", "two"}, {"d", "two"}});
    CHECK(parse_yaml("", "f").is_null());
    CHECK(parse_yaml("f: !call m.n\n", "f", {"!call"}) == Json{{"f", "!call m.n"}});
    CHECK(caught([] { parse_yaml("a: 1\nf: !call m.n\n", "f.yaml"); }).says("f.yaml:2: tag '!call' is not known"));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("yaml: what is damaged or built to harm is refused with its line") {
    const auto refused = [](const std::string& text, const char* part) {
      const Caught error = caught([&] { parse_yaml(text, "f.yaml"); });
      CAPTURE(error.text);
      CHECK(error.code == 3);
      CHECK(error.says(part));
    };
    refused("a: 1\nb: [1\n", "f.yaml:");
    refused("a: 1\nb: 2\na: 3\n", "f.yaml:3: key 'a' twice");
    refused("? [a]\n: 1\n", "a key that is no text");
    refused("a: " + std::string(33, '[') + std::string(33, ']'), "nested deeper than 32");
    refused("a: " + std::string(100'000, '['), "f.yaml:1");
    refused("a: &a [*a]\n", "nested deeper");  // a list that holds itself
    std::string bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n";
    for (int i = 1; i < 8; ++i) {
      const std::string before = "*a" + std::to_string(i - 1);
      bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
      for (int k = 0; k < 10; ++k) bomb += before + (k < 9 ? "," : "]\n");
    }
    refused(bomb, "more than 100000 nodes");
  }
}

}  // namespace coppice
