#include "src/base/json.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "src/base/files.h"
#include "tests/caught.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

std::string nested(size_t depth) { return std::string(depth, '[') + "1" + std::string(depth, ']'); }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("parse_json: values arrive with their types") {
    const Json value =
        parse_json(R"({"a": [1, -2, 2.5, true, null, "x\u00e9"], "b": {}, "c": 18446744073709551615, "d": []})", "f");
    CHECK(value["a"][0].is_number_unsigned());
    CHECK(value["a"][1] == -2);
    CHECK(value["a"][2] == 2.5);
    CHECK(value["a"][3] == true);
    CHECK(value["a"][4].is_null());
    CHECK(value["a"][5] == "xé");
    CHECK(value["b"] == Json::object());
    CHECK(value["c"].get<uint64_t>() == 18446744073709551615u);
    CHECK(value["d"] == Json::array());
    CHECK(parse_json(" 7 \n", "f") == 7);
  }

  TEST_CASE("parse_json: everything else is a bad file that names path and byte") {
    for (const std::string text : {"", "{", "[1,]", "{\"a\" 1}", "nul", "1 2", "{} x", "'a'", "[1e999]", "\"\xff\"",
                                   "\"\xed\xa0\x80\"", "\"\\ud800\"", "{\"a\":01}", "// c\n1", "\"a\nb\""}) {
      CAPTURE(text);
      const auto error = caught([&] { parse_json(text, "m.json"); });
      CHECK(error.code == 3);
      CHECK(error.says("m.json: JSON: byte "));
    }
    CHECK(caught([] { parse_json(std::string_view("{}\0{}", 5), "m"); }).says("NUL"));
    const auto twice = caught([] { parse_json(R"({"x": {"sha256": 1, "b": 2, "sha256": 3}})", "m.json"); });
    CHECK(twice.code == 3);
    CHECK(twice.says("\"sha256\" appears twice"));
    CHECK(parse_json(R"([{"a": 1}, {"a": 2}])", "m").size() == 2);
    CHECK(parse_json(nested(64), "m").is_array());
    CHECK(caught([] { parse_json(nested(65), "m"); }).says("deeper than 64"));
    CHECK(caught([] { parse_json(std::string(1'000'000, '['), "m"); }).code == 3);
    CHECK_FALSE(caught([] { parse_json("{\"\x1b[2J\": 1, \"\x1b[2J\": 1}", "m"); }).says("\x1b"));
  }

  TEST_CASE("read_json: from a file, up to a limit") {
    const ScratchFolder folder;
    spill(folder / "a.json", "{\"x\": 1}");
    CHECK(read_json(folder / "a.json")["x"] == 1);
    CHECK(caught([&] { read_json(folder / "a.json", 3); }).code == 3);
    CHECK(caught([&] { read_json(folder / "none.json"); }).code == 3);
  }

  TEST_CASE("fingerprint: of the canonical form, whatever the order and spacing") {
    const Json a = parse_json(R"({"b": 1, "a": [0.1, 2.0, 1e300, -0.0, "t"], "c": {"y": true, "x": null}})", "f");
    const Json b = parse_json(R"({ "c":{"x":null,"y":true},"a":[1e-1,2.00,1E+300,-0.0,"t"],  "b":1 })", "f");
    CHECK(fingerprint(a) == sha256_hex(R"({"a":["0.1","2","1e+300","-0","t"],"b":1,"c":{"x":null,"y":true}})"));
    CHECK(fingerprint(a) == fingerprint(b));
    CHECK(fingerprint(Json{{"k", 2}}) != fingerprint(Json{{"k", 2.0}}));  // an integer is no float
    CHECK(fingerprint(Json{{"k", int64_t{2}}}) == fingerprint(Json{{"k", uint64_t{2}}}));
    CHECK(fingerprint(Json{{"k", 0.1}}) != fingerprint(Json{{"k", std::nextafter(0.1, 1.0)}}));
  }

  TEST_CASE("seal: the last member is the digest of every byte before it; reading gives the object back") {
    const Json object = {{"format", "coppice.test"}, {"version", 2}, {"x", {1, 2.5, "é"}}, {"zz", true}};
    const std::string text = seal(object);
    const std::string body = R"({"format":"coppice.test","version":2,"x":[1,2.5,"é"],"zz":true)";
    CHECK(text == body + ",\"sha256\":\"" + sha256_hex(body) + "\"}\n");
    const ScratchFolder folder;
    write_file_atomically(folder / "m.json", text);
    CHECK(read_sealed(folder / "m.json", "coppice.test", 2) == object);
    CHECK(read_sealed(folder / "m.json", "coppice.test", 9) == object);
    const auto newer = caught([&] { read_sealed(folder / "m.json", "coppice.test", 1); });
    CHECK(newer.code == 3);
    CHECK(newer.says("version 2"));
    CHECK(newer.says("up to version 1"));
    const auto other = caught([&] { read_sealed(folder / "m.json", "coppice.tokens", 2); });
    CHECK(other.says("\"coppice.test\""));
    CHECK(other.says("\"coppice.tokens\""));
    CHECK(caught([&] { seal(Json::object()); }).code == 1);
    CHECK(caught([&] { seal(Json{{"sha256", "x"}}); }).code == 1);
  }

  TEST_CASE("field access names path and key") {
    const Json object =
        parse_json(R"({"n": 3, "neg": -1, "f": 1.5, "s": "t", "a": [], "o": {}, "big": 18446744073709551616})", "f");
    CHECK(unsigned_at(object, "n", "f") == 3);
    CHECK(number_at(object, "f", "f") == 1.5);
    CHECK(number_at(object, "n", "f") == 3);
    CHECK(string_at(object, "s", "f") == "t");
    CHECK(array_at(object, "a", "f").empty());
    CHECK(object_at(object, "o", "f").empty());
    CHECK(unsigned_at(Json{{"k", 5}}, "k", "f") == 5);  // built in the program: a signed type
    for (const char* key : {"neg", "f", "s", "big", "missing"}) {
      CAPTURE(key);
      const auto error = caught([&] { unsigned_at(object, key, "m.json"); });
      CHECK(error.code == 3);
      CHECK(error.says("m.json: "));
      CHECK(error.says(fmt::format("\"{}\"", key)));
    }
    CHECK(caught([&] { string_at(object, "n", "f"); }).says("got 3, expected a string"));
    CHECK(caught([&] { number_at(object, "s", "f"); }).code == 3);
    CHECK(caught([&] { array_at(object, "o", "f"); }).code == 3);
    CHECK(caught([&] { object_at(object, "a", "f"); }).code == 3);
    CHECK(caught([&] { string_at(Json::array(), "n", "f"); }).code == 3);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("row 15: any flipped bit, any cut and any addition breaks the seal") {
    const ScratchFolder folder;
    const std::string text =
        seal({{"format", "coppice.test"}, {"version", 1}, {"files", {{{"name", "part-00000.h5"}, {"bytes", 12345}}}}});
    const auto read = [&](const std::string& bytes) {
      spill(folder / "m.json", bytes);
      return caught([&] { read_sealed(folder / "m.json", "coppice.test", 1); }).code;
    };
    CHECK(read(text) == 0);
    for (size_t i = 0; i < text.size(); ++i) {
      std::string damaged = text;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      CAPTURE(i);
      CHECK(read(damaged) == 3);
      CHECK(read(text.substr(0, i)) == 3);
    }
    CHECK(read(text + "\n") == 3);
    CHECK(read(" " + text) == 3);
  }
}
