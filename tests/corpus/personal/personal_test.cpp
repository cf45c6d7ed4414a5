// Personal data: the fixture to the byte, the rules of each kind, hostile text.
#include "src/corpus/personal/personal.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/corpus/personal/check_digits.h"
#include "src/corpus/personal/kinds.h"
#include "src/corpus/personal/secrets.h"

using namespace coppice;
using nlohmann::json;

namespace {

/// `KIND=text|KIND=text` of what is found.
std::string found(std::string_view text, const PersonalFinder& finder = PersonalFinder()) {
  std::vector<PersonalSpan> spans;
  finder.find(text, spans);
  std::string all;
  for (const PersonalSpan& span : spans)
    ((((all += all.empty() ? "" : "|") += finder.kind_names()[span.kind]) += "=") +=
     text.substr(span.begin, span.end - span.begin));
  return all;
}

std::string repeated(std::string_view unit, size_t bytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

std::string assigned(std::string_view code) {
  std::string all;
  for (const TextSpan& span : find_assigned_secrets(code))
    (all += all.empty() ? "" : "|") += code.substr(span.begin, span.end - span.begin);
  return all;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("personal data: every line of the fixture, spans, texts and masked form") {
    std::ifstream lines(COPPICE_SOURCE_DIR "/tests/corpus/fixtures/pii.jsonl");
    const PersonalFinder finder;
    std::vector<PersonalSpan> spans;
    size_t seen = 0;
    for (std::string line; std::getline(lines, line); ++seen) {
      const json row = json::parse(line);
      const std::string text = row["text"];
      finder.find(text, spans);
      json entities = json::array();
      for (const PersonalSpan& span : spans)
        entities.push_back({{"kind", finder.kind_names()[span.kind]},
                            {"begin", span.begin},
                            {"end", span.end},
                            {"text", text.substr(span.begin, span.end - span.begin)}});
      CHECK_MESSAGE(entities == row["entities"], row["id"]);
      CHECK_MESSAGE(masked(text) == row["masked"], row["id"]);
    }
    CHECK(seen == 28);
  }

  TEST_CASE("mail: what stands around an address is no part of it") {
    CHECK(found("mailto:a.b@c.example?subject=x") == "EMAIL=a.b@c.example");
    CHECK(found("('x@y.example', \"z@y.example\")") == "EMAIL=x@y.example|EMAIL=z@y.example");
    CHECK(found("a@b.example. Next") == "EMAIL=a@b.example");
    CHECK(found("a@b.example-based, a@b.example_x") == "EMAIL=a@b.example|EMAIL=a@b.example");
    CHECK(found("kim@post.example로") == "EMAIL=kim@post.example");  // a particle without a blank
    CHECK(found("icon@2x.png and a@b.c and a@b..example and @b.example") == "");
    CHECK(found("212-555-0134@b.example") == "EMAIL=212-555-0134@b.example");
    CHECK(found(std::string(250, 'a') + "@b.example") == "");  // longer than an address can be
  }

  TEST_CASE("ip: public addresses of both versions, no versions of programs") {
    CHECK(found("8.8.8.8:53 9.9.9.9/32") == "IP=8.8.8.8|IP=9.9.9.9");
    CHECK(found("v8.8.8.8, version 8.8.8.8, release: 8.8.4.4, 8.8.8.8.8, 08.8.8.8, 8.8.8.8-2") == "");
    CHECK(found("see Section 6.1.2.3, Firefox/1.5.0.9 http://8.8.8.8/x") == "IP=8.8.8.8");
    CHECK(found("11.5.2.3. Printing\n## 1.3.3.3 Teams\n  5.1.0.36  COMMITTED") == "");  // headings
    CHECK(found("8.8.8.8 - - [x]\n93.184.2.3 Nginx\nat 1.3.3.3 Teams") == "IP=8.8.8.8|IP=93.184.2.3|IP=1.3.3.3");
    CHECK(found("100.64.0.1 198.18.0.1 224.0.0.1 255.255.255.255 0.1.2.3 192.0.2.9") == "");
    CHECK(found("at 2a00:1450:4001:81b::200e, 2606::1:") == "IP=2a00:1450:4001:81b::200e|IP=2606::1");
    CHECK(found("[2a00::5.6.7.8]") == "IP=2a00::5.6.7.8");
    CHECK(found("2001:db8::1 std::move 2024:05:17 2a00:1:2:3:4:5:6:7:8 2a00::1::2 ff02::1") == "");
  }

  TEST_CASE("telephone: international and of the US") {
    CHECK(found("+1 (212) 555-0134; 212-555-0134; 1-800-555-0134; 212.555.0134") ==
          "PHONE=+1 (212) 555-0134|PHONE=212-555-0134|PHONE=1-800-555-0134|PHONE=212.555.0134");
    CHECK(found("+82\u00a02\u00a03456\u00a07890") == "PHONE=+82\u00a02\u00a03456\u00a07890");
    CHECK(found("+1 212 555 0134 2024") == "PHONE=+1 212 555 0134");
    CHECK(found("+1234567 +12345678901234567 C++20240517 x+49301234567 +10000000.50 112-555-0134 212-155-0134") == "");
    CHECK(found("10:00+02:00 12125550134 2125550134 212 555 0134") == "");
  }

  TEST_CASE("card, account and social security numbers: check digits and borders") {
    CHECK(found("4436-0450-2963-2206 x") == "CARD=4436-0450-2963-2206");
    CHECK(found("3782 822463 10005") == "CARD=3782 822463 10005");
    CHECK(found("Mem: 16279260 5910248 523432 871036 9845580 9128964") == "");
    CHECK(found("2223003122003222") == "CARD=2223003122003222");
    CHECK(found("4436-0450 2963-2206, 9436045029632206, 44360450296322061, 4436045029632206.5, a4436045029632206") ==
          "");
    CHECK(found("(NL91ABNA0417164300)") == "IBAN=NL91ABNA0417164300");
    CHECK(found("XX44500105175407324931 de44500105175407324931 DE4450010517540732493 DE44500105175407324931X") == "");
    CHECK(found("536-90-43990 5536-90-4399 1.536-90-4399") == "");
    CHECK(luhn_holds("79927398713"));
    CHECK_FALSE(luhn_holds("79927398710"));
    CHECK_FALSE(luhn_holds("0"));
    CHECK(mod97_holds("GB82 WEST 1234 5698 7654 32"));
    CHECK_FALSE(mod97_holds("GB82 WEST 1234 5698 7654 33"));
  }

  TEST_CASE("secrets: known shapes, not what stands for one") {
    const std::string key(35, 'k'), token = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";
    CHECK(found("k=AIza" + key) == "SECRET=AIza" + key);
    CHECK(found("AIza" + key + "k xAIza" + key) == "");  // 36, and within a word
    CHECK(found("github_pat_" + token + " npm_" + token + " hf_" + token) ==
          "SECRET=github_pat_" + token + "|SECRET=npm_" + token + "|SECRET=hf_" + token);
    CHECK(found("sk_live_" + token + ",glpat-" + token) == "SECRET=sk_live_" + token + "|SECRET=glpat-" + token);
    CHECK(found("SG." + token.substr(0, 22) + "." + token + token.substr(0, 7)) ==
          "SECRET=SG." + token.substr(0, 22) + "." + token + token.substr(0, 7));
    CHECK(found("pypi-AgEI" + token + token) == "SECRET=pypi-AgEI" + token + token);
    CHECK(found("ghp_" + std::string(36, 'x') + " AKIAXXXXXXXXXXXXXXXX") == "");
    CHECK(found("see https://bob:pa55@db.example/x") == "SECRET=bob:pa55");
    CHECK(find_secrets("https://u:<pw>@h.example https://u:${PW}@h.example https://h.example:80/a@b", true).empty());
    CHECK(found("-----BEGIN PUBLIC KEY-----\nMFww\n-----END PUBLIC KEY-----") == "");
    CHECK(found("-----BEGIN PRIVATE KEY-----\nMFww\n-----BEGIN PRIVATE KEY-----\nMFww\n-----END PRIVATE KEY-----\n") ==
          "SECRET=-----BEGIN PRIVATE KEY-----\nMFww\n-----END PRIVATE KEY-----");
  }

  TEST_CASE("secrets in code: values that look drawn at random, by the name they are assigned to") {
    const std::string random = "qL8x3VvZ0pR7sT2wY9bN4cM6dK1fJ5gH";  // 32 different characters: 5 bits
    CHECK(assigned("api_key = \"" + random + "\"\n") == random);
    CHECK(assigned("os.environ['SECRET'] = '" + random + "=='") == random + "==");
    CHECK(assigned("\"token\": \"" + random + "\",") == random);
    CHECK(assigned("password := 0123f5a7e9b2c4d68") == "");                        // short
    CHECK(assigned("passwd = 0f1e2d3c4b5a69788796a") == "0f1e2d3c4b5a69788796a");  // hex, 21 of them
    CHECK(assigned("name = \"" + random + "\"") == "");
    CHECK(assigned("key = f00dfeedf00dfeedf00dfeed1") == "");                 // 2.2 bits
    CHECK(assigned("key = da39a3ee5e6b4b0d3255bfef95601890afd80709") == "");  // 40 hex digits: a hash
    CHECK(assigned("key_sha = \"" + random + "\"") == "");
    CHECK(assigned("token = 123e4567-e89b-12d3-a456-426614174000") == "");
    CHECK(assigned("key = abcdefghijklmnopqrstuvwxyz012345") == "");
    CHECK(assigned("key = get_the_secret_from_the_place(x)") == "");
    const std::string code = "key = \"" + random + "\" # a@b.example AKIAM3ADEUPN4THINGX2";
    CHECK(find_secrets(code, false).size() == 1);
    CHECK(find_secrets(code, true).size() == 2);
    CHECK(found(code, PersonalFinder({"SECRET"}, true, {})) == "SECRET=" + random + "|SECRET=AKIAM3ADEUPN4THINGX2");
  }

  TEST_CASE("personal data: kinds that are not asked for stay") {
    CHECK(found("a@b.example 8.8.8.8", PersonalFinder({"IP"}, false, {})) == "IP=8.8.8.8");
  }

  TEST_CASE("personal data: a fake has the form of its kind, is nobody's, and is the same again") {
    const std::string text =
        "a@b.example c@d.example a@b.example 8.8.8.8 2606::1 +49 30 23125123 536-90-4399 4436045029632206 "
        "DE44500105175407324931";
    const PersonalFinder finder;
    std::vector<PersonalSpan> spans;
    finder.find(text, spans);
    REQUIRE(spans.size() == 9);
    const std::string fake = replaced(text, spans, finder, Replacement::fake, 7);
    std::vector<std::string> words;
    for (size_t at = 0; at < fake.size();) {
      const size_t end = std::min(fake.find(' ', at), fake.size());
      words.push_back(fake.substr(at, end - at));
      at = end + 1;
    }
    CHECK(words.at(0).ends_with("@example.com"));
    CHECK(words.at(0) == words.at(2));
    CHECK(words.at(0) != words.at(1));
    CHECK(words.at(4).starts_with("2001:db8::"));
    CHECK(found(words.at(3) + " " + words.at(4)) == "");  // documentation
    CHECK(fake == replaced(text, spans, finder, Replacement::fake, 7));
    CHECK(fake != replaced(text, spans, finder, Replacement::fake, 8));
    CHECK(replaced("to a@b.example now", {{3, 14, 1}}, finder, Replacement::remove, 0) == "to  now");
    for (uint64_t number : {uint64_t{0}, uint64_t{12345678901234567}, ~uint64_t{0}}) {
      const auto kinds = personal_kinds();
      CHECK(found(kinds[1].fake("a@b.example", number)).ends_with("@example.com"));
      CHECK(found(kinds[2].fake("8.8.8.8", number)) == "");
      CHECK(found(kinds[3].fake("536-90-4399", number)) == "");
      CHECK(found(kinds[4].fake("DE44500105175407324931", number)) == "");
      CHECK(luhn_holds(kinds[5].fake("4436045029632206", number)));
      CHECK(found(kinds[6].fake("(212) 555-0134", number)).starts_with("PHONE="));
      CHECK(fake_of_same_form("aB-9_", number).size() == 5);
    }
  }

  TEST_CASE("patterns of the user: check digits, lines, limits") {
    const auto finder = [](const std::string& regex, const std::string& check) {
      return PersonalFinder({"EMAIL"}, false,
                            {UserPattern({.name = "ID", .regex = regex, .check = check}, "my.toml:3")});
    };
    CHECK(found("no 79927398713, 79927398710", finder("\\b\\d{11}\\b", "luhn")) == "ID=79927398713");
    CHECK(found("id ab12 a@b.example", finder("\\b[a-z]+\\d+", "none")) == "ID=ab12|EMAIL=a@b.example");
    CHECK(found("ab a@b.example", finder("\\S+", "none")) == "ID=ab|EMAIL=a@b.example");  // ours before theirs
    CHECK(found("a\nb", finder("a.b", "none")) == "");
    CHECK(found("é1 é2", finder("é\\d", "none")) == "ID=é1|ID=é2");
    CHECK(found("x", finder("y*", "none")) == "");  // empty matches are none
    std::vector<PersonalSpan> spans;
    CHECK(finder("\\d+", "none").find("1", spans));
    CHECK_FALSE(finder("^(a+)+$", "none").find(std::string(100, 'a') + "b", spans));
  }

  TEST_CASE("patterns of the user: in a long line a match is found wherever it lies, and words are whole") {
    const auto ids = [](const std::string& text, const std::string& regex) {
      std::vector<TextSpan> spans;
      CHECK(UserPattern({.name = "ID", .regex = regex}, "my.toml:3").find(text, spans));
      return spans;
    };
    const auto expect = [](size_t begin, size_t end) { return std::vector<TextSpan>{{begin, end}}; };
    for (const size_t length : {9, 512})
      for (const size_t at : {4000, 4090, 4095, 4096, 4097, 8185, 8191, 8192, 12'285, 20'000}) {
        const std::string id(length, '7'), text = std::string(at, ' ') + id + std::string(9000, ' ');
        CHECK(ids(text, "\\b\\d{" + std::to_string(length) + "}\\b") == expect(at, at + length));
      }
    // No border of a piece is one of a word, of a line, or hides what stands before or behind.
    const std::string word(20'000, 'a');
    CHECK(ids(word, "\\b[a-z]{1,100}\\b").empty());
    CHECK(ids(word, "(?<![a-z])[a-z]{5}").size() == 1);
    CHECK(ids(word, "^a").size() == 1);
    CHECK(ids(word, "a$") == expect(19'999, 20'000));
    CHECK(ids(word + "\n" + word, "^a").size() == 2);
    CHECK(ids(word, "[a-z]{5}(?![a-z])") == expect(19'995, 20'000));
    // Characters of several bytes are not cut.
    std::string wide = "x";
    while (wide.size() < 20'000) wide += "\u00e9\u20ac\U0001F600";
    size_t letters = 0, last = 1;
    for (const TextSpan& span : ids(wide, "\u00e9\u20ac\U0001F600")) {
      CHECK(span == TextSpan{last, last + 9});
      last = span.end;
      ++letters;
    }
    CHECK(letters == (wide.size() - 1) / 9);
    // What is longer comes in parts, none of which is left out.
    size_t covered = 0;
    for (const TextSpan& span : ids(word, "a+")) {
      CHECK(span.begin == covered);
      covered = span.end;
    }
    CHECK(covered == word.size());
  }

  TEST_CASE("patterns of the user: what is refused") {
    const auto refusal = [](const UserPatternOptions& options) -> std::string {
      try {
        UserPattern pattern(options, "my.toml:3");
      } catch (const UserError& error) {
        return error.what();
      }
      return "";
    };
    CHECK(refusal({.name = "a b", .regex = "x"}) == "my.toml:3: name: got 'a b', expected letters, digits and '_'");
    CHECK(refusal({.name = "ID", .regex = "x", .check = "mod11"}) ==
          "my.toml:3: check: got 'mod11', expected luhn, mod97 or none");
    CHECK(refusal({.name = "ID", .regex = "("})
              .starts_with("my.toml:3: regex: got '(', expected a regular expression: "));
    CHECK(refusal({.name = "ID", .regex = ""}) ==
          "my.toml:3: regex: got '', expected a regular expression: it is empty at its byte 0");
  }

  TEST_CASE("personal data: any bytes, and borders of the text") {
    uint64_t state = 1;
    const std::string signs = "@.-+:(0123456789abcdefxAKIzJGB_ /\n\xC3\xA9\xE2\x80\x91";
    size_t spans_seen = 0;
    for (int round = 0; round < 20000; ++round) {
      std::string text;
      for (int i = 0; i < 40; ++i) {
        state = state * 6364136223846793005 + 1442695040888963407;
        text += signs[(state >> 33) % signs.size()];
      }
      std::vector<PersonalSpan> spans;
      PersonalFinder({"EMAIL", "IP", "PHONE", "CARD", "IBAN", "SSN", "SECRET"}, true, {}).find(text, spans);
      size_t end = 0;
      for (const PersonalSpan& span : spans) {
        REQUIRE(span.begin >= end);
        REQUIRE(span.end > span.begin);
        REQUIRE(span.end <= text.size());
        end = span.end;
      }
      spans_seen += spans.size();
    }
    CHECK(spans_seen > 0);
    CHECK(found("") == "");
  }
}

TEST_SUITE("slow") {
  TEST_CASE("personal data: hostile texts of 64 MB are read in linear time") {
    constexpr size_t kBytes = size_t{64} << 20;
    const PersonalFinder all({"EMAIL", "IP", "PHONE", "CARD", "IBAN", "SSN", "SECRET"}, /*is_code=*/true, {});
    std::vector<PersonalSpan> spans;
    for (const std::string_view unit : {"1", "@", "a@", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "eyJ.",
                                        "key=", "ghp_", "1 ", "+1", "2001:", "a.a@a."}) {
      all.find(repeated(unit, kBytes), spans);
      CHECK_MESSAGE(spans.empty(), unit);
    }
  }
}
