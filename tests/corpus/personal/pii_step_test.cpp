// The step `pii`.
#include <doctest/doctest.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/corpus/sources/source.h"
#include "src/text/document_metadata.h"
#include "tests/corpus/step_of.h"

#include <nlohmann/json.hpp>

using namespace coppice;
using test::refusal_of_step;
using test::step_of;

namespace {

constexpr const char* kSix = "a@b.example c@d.example e@f.example g@h.example i@j.example 8.8.8.8";

struct Looked {
  Document document;
  std::vector<double> values;
  bool changed = false, goes = false;
};

Looked look(const ScratchFolder& scratch, const std::string& options, const std::string& text,
            const std::string& id = "1", const std::string& metadata = "") {
  const auto step = std::dynamic_pointer_cast<const DocumentStep>(step_of(scratch, "kind = \"pii\"\n" + options));
  Looked looked{.document = {.id = id, .source = "s", .text = text, .metadata = metadata}};
  const std::vector<Rule> rules = step->rules();
  looked.values.assign(rules.size(), std::numeric_limits<double>::quiet_NaN());
  looked.changed = step->start()->look(looked.document, looked.values, true);
  for (size_t i = 0; i < rules.size(); ++i) looked.goes |= rules[i].drops(looked.values[i]);
  return looked;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("pii: a document is masked, counted by kind, and goes above max_spans") {
    const ScratchFolder scratch;
    const Looked five = look(scratch, "", "a@b.example c@d.example 8.8.8.8 536-90-4399 9.9.9.9 x");
    CHECK(five.document.text == "<EMAIL> <EMAIL> <IP> <SSN> <IP> x");
    CHECK(*find_metadata(five.document, "pii") == Json({{"EMAIL", 2}, {"IP", 2}, {"SSN", 1}}));
    CHECK(five.changed);
    CHECK(five.values[0] == 5);
    CHECK(std::isnan(five.values[1]));  // of licensed sources
    CHECK(five.values[2] == 0);
    CHECK_FALSE(five.goes);
    const Looked six = look(scratch, "", kSix);
    CHECK(six.goes);
    CHECK(six.document.text == "<EMAIL> <EMAIL> <EMAIL> <EMAIL> <EMAIL> <IP>");  // so are samples of what goes
    CHECK_FALSE(look(scratch, "max_spans = 0\n", kSix).goes);
    const Looked none = look(scratch, "", "nothing");
    CHECK_FALSE(none.changed);
    CHECK(none.document.metadata.empty());
    CHECK(none.values[0] == 0);
    CHECK(none.values[2] == 0);
  }

  TEST_CASE("pii: replacements, kinds, code, patterns") {
    const ScratchFolder scratch;
    CHECK(look(scratch, "replace = \"remove\"\n", "to a@b.example now").document.text == "to  now");
    const std::string fake = look(scratch, "replace = \"fake\"\n", "a@b.example a@b.example").document.text;
    CHECK(fake.ends_with("@example.com"));
    CHECK(fake.substr(0, fake.find(' ')) == fake.substr(fake.find(' ') + 1));
    CHECK(fake != look(scratch, "replace = \"fake\"\n", "a@b.example a@b.example", "2").document.text);
    CHECK(fake != look(scratch, "replace = \"fake\"\nseed = 1\n", "a@b.example a@b.example").document.text);
    CHECK(look(scratch, "kinds = [\"IP\"]\n", "a@b.example 8.8.8.8").document.text == "a@b.example <IP>");
    const std::string code = "api_key = \"qL8x3VvZ0pR7sT2wY9bN4cM6dK1fJ5gH\"";
    CHECK(look(scratch, "", code).document.text == code);
    CHECK(look(scratch, "code = true\n", code).document.text == "api_key = \"<SECRET>\"");
    CHECK(look(scratch, "code = true\nkinds = [\"EMAIL\"]\n", code).document.text == code);
    CHECK(look(scratch, "code = true\nkinds = []\n", code).document.text == code);
    const Looked own =
        look(scratch, "[[data.step.pattern]]\nname = \"RRN\"\nregex = '\\d{6}-\\d{7}'\n", "900101-1234567");
    CHECK(own.document.text == "<RRN>");
    CHECK(*find_metadata(own.document, "pii") == Json({{"RRN", 1}}));
    const Looked slow =
        look(scratch, "[[data.step.pattern]]\nname = \"X\"\nregex = '^(a+)+$'\n", std::string(100, 'a') + "b");
    CHECK(slow.goes);
    CHECK(slow.values[0] == 0);
    CHECK(slow.values[2] == 1);
  }

  TEST_CASE("pii: the title that a step took from the page is masked as the text is, other members are not") {
    const ScratchFolder scratch;
    const auto looked_at = [&](const std::string& options, Document document) {
      const auto step = std::dynamic_pointer_cast<const DocumentStep>(step_of(scratch, "kind = \"pii\"\n" + options));
      std::vector<double> values(step->rules().size());
      CHECK(step->start()->look(document, values, true));
      CHECK(values[0] == 1);
      return document;
    };
    const Document page{.id = "1",
                        .text = "Ask a@b.example\n\nNow.",
                        .fields = R"("author":"a@b.example")",
                        .metadata = R"("title":"Ask a@b.example","url":"https://b.example/?m=a@b.example")"};
    const Document masked = looked_at("", page);
    CHECK(masked.text == "Ask <EMAIL>\n\nNow.");
    CHECK(metadata_text(masked, "title") == "Ask <EMAIL>");
    CHECK(metadata_text(masked, "url") == "https://b.example/?m=a@b.example");
    CHECK(masked.fields == page.fields);
    CHECK(*find_metadata(masked, "pii") == Json({{"EMAIL", 1}}));
    CHECK(metadata_text(looked_at("replace = \"remove\"\n", page), "title") == "Ask ");
    const Document fake = looked_at("replace = \"fake\"\n", page);
    CHECK(fake.text == metadata_text(fake, "title") + "\n\nNow.");
    // A step between may have cut the title out of the text.
    const Looked cut = look(scratch, "", "Now.", "1", R"("title":"Ask a@b.example")");
    CHECK(cut.changed);
    CHECK(cut.values[0] == 0);
    CHECK(cut.document.metadata == R"("title":"Ask <EMAIL>")");
    const Looked slow = look(scratch, "[[data.step.pattern]]\nname = \"X\"\nregex = '^(a+)+$'\n", "Now.", "1",
                             "\"title\":\"" + std::string(100, 'a') + "b\"");
    CHECK(slow.goes);
  }

  TEST_CASE("pii: documents of public and licensed sources have a limit of their own, none by default") {
    const ScratchFolder scratch;
    const auto values_of = [&](const std::string& options, const SourceOptions& source) {
      const auto step = std::dynamic_pointer_cast<const DocumentStep>(step_of(scratch, "kind = \"pii\"\n" + options));
      const std::vector<Rule> rules = step->rules();
      std::string dropped_by;
      const auto look = step->start();
      look->begin(source);
      for (int document = 0; document < 2; ++document) {
        Document six{.id = "1", .text = kSix};
        std::vector<double> values(rules.size(), std::numeric_limits<double>::quiet_NaN());
        look->look(six, values, true);
        for (size_t i = 0; i < rules.size(); ++i)
          if (rules[i].drops(values[i])) dropped_by += rules[i].name + " ";
      }
      return dropped_by;
    };
    CHECK(values_of("", {}) == "spans spans ");
    CHECK(values_of("", {.license = ""}) == "spans spans ");
    CHECK(values_of("", {.license = "Unknown"}) == "spans spans ");
    CHECK(values_of("", {.license = "CC-BY-4.0"}) == "");
    CHECK(values_of("", {.is_public = true}) == "");
    CHECK(values_of("max_licensed_spans = 5\n", {.is_public = true}) == "licensed_spans licensed_spans ");
    CHECK(values_of("max_licensed_spans = 6\n", {.is_public = true}) == "");
    CHECK(values_of("max_licensed_spans = 5\n", {}) == "spans spans ");
  }

  TEST_CASE("pii: what is refused, and what its fingerprint holds") {
    const ScratchFolder scratch;
    const auto refusal = [&](const std::string& options) {
      return refusal_of_step(scratch, "kind = \"pii\"\n" + options);
    };
    const std::string at = (scratch / "my.toml").string();
    CHECK(refusal("replace = \"hide\"\n") == at + ":3: replace: got 'hide', expected placeholder, fake or remove");
    CHECK(refusal("max_spans = -1\n") == at + ":3: max_spans: got -1, expected 0 or more");
    CHECK(refusal("max_licensed_spans = -1\n") == at + ":3: max_licensed_spans: got -1, expected 0 or more");
    CHECK(refusal("kinds = [\"NAME\"]\n") ==
          at + ":3: kinds: got 'NAME', expected some of EMAIL, IP, PHONE, CARD, IBAN, SSN, SECRET");
    CHECK(refusal("[[data.step.pattern]]\nname = \"IP\"\nregex = \"x\"\n") ==
          at + ":4: name: 'IP' is the name of another kind; choose another");
    CHECK(refusal("[[data.step.pattern]]\nname = \"ID\"\nregex = \"(\"\n").starts_with(at + ":3: regex: got '('"));
    CHECK(step_of(scratch, "kind = \"pii\"\n")->inputs().empty());
    CHECK(step_of(scratch, "kind = \"pii\"\n[[data.step.pattern]]\nname = \"ID\"\nregex = \"x\"\n")->inputs() ==
          std::vector<std::string>{"pattern ID none x"});
  }
}
