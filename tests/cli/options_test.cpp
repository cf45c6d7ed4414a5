// Recipes to options: where values come from, what is refused and how, and the resolved recipe that reads back as
// itself.
#include "src/cli/options.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "src/base/errors.h"
#include "tests/scratch_folder.h"

using namespace coppice;

namespace {

namespace fs = std::filesystem;
using Paths = std::vector<std::string>;

/// A recipe on disk for the length of a test; the working folder is its own, so that messages say `my.toml`.
class ScratchRecipe {
 public:
  explicit ScratchRecipe(const std::string& text) : before_(fs::current_path()) {
    folder_.write("my.toml", text);
    fs::current_path(folder_.path);
  }
  ~ScratchRecipe() { fs::current_path(before_); }
  ScratchRecipe(const ScratchRecipe&) = delete;
  ScratchRecipe& operator=(const ScratchRecipe&) = delete;

 private:
  ScratchFolder folder_;
  fs::path before_;
};

RecipeSource load(const std::string& text, const std::vector<Override>& overrides = {}, const Paths& unset = {}) {
  const ScratchRecipe file(text);
  return RecipeSource::load("my.toml", overrides, unset);
}

struct Caught {
  int code = 0;
  std::string text;
};

Caught caught(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return {static_cast<int>(error.code()), error.what()};
  }
  return {};
}

/// The text of the usage error that `body` ends with; "" when there is none, or another code.
std::string refusal(const std::function<void()>& body) {
  const Caught error = caught(body);
  return error.code == 2 ? error.text : "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct KdOptions {
  double teacher_weight = 0.9;
  double kd_temperature = 1.0;
  template <class Field>
  void visit_fields(Field& field) {
    field("teacher_weight", teacher_weight, Mark::decides, "share of the teacher in the target; 0 = true labels only");
    field("kd_temperature", kd_temperature, Mark::decides, "softens teacher and student alike; > 0");
  }
};

/// A small reader of everything the recipe below holds, as a recipe reader would be.
struct Everything {
  std::string name = "unnamed";
  uint64_t seed = 1;
  int threads = 0;
  bool quiet = false;
  std::vector<std::string> tags = {"a\"b", "c\\d\n\x1b"};
  std::vector<int64_t> widths;
  std::vector<std::string> stages;
  std::vector<int64_t> tokens;
  std::vector<double> rates;
  std::vector<std::string> mixture;
  int64_t width = 0;

  explicit Everything(OptionTable root) {
    root.take("name", name, "");
    root.take("seed", seed, "");
    root.take("threads", threads, "");
    root.take("quiet", quiet, "");
    root.take("tags", tags, "");
    root.take("widths", widths, "");
    OptionTable model = root.table("model");
    for (const std::string& key : model.table_names())
      model.table(key).take("intermediate_size", width, "FFN channels");
    model.finish();
    for (OptionTable stage : root.tables("stage")) {
      std::string stage_name, from;
      stage.take("name", stage_name, "");
      stage.take("from", from, "");
      stages.push_back(stage_name);
      stage.take_count("tokens", tokens.emplace_back(), "tokens to train on");
      stage.take("lr", rates.emplace_back(3e-4), "rate");
      for (OptionTable row : stage.tables("mixture")) {
        std::string domain;
        row.take("domain", domain, "");
        row.finish();
        mixture.push_back(domain);
      }
      stage.finish();
    }
    root.finish();
  }
};

const char* kRecipe = R"(# a comment
name = "demo"
seed = 7

[model.source]
intermediate_size = 768
[model.student]
intermediate_size = 256

[[stage]]
name = "core"
tokens = 1.2e6
[[stage.mixture]]
domain = "prose"
[[stage.mixture]]
domain = "code"

[[stage]]
name = "core.long"
lr = 1
)";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("options: values replace defaults, absent keys keep them") {
    RecipeSource source = load("[kd]\nteacher_weight = 1\n");
    OptionTable root = source.root();
    OptionTable kd = root.table("kd");
    KdOptions options;
    kd.read(options);
    kd.finish();
    root.finish();
    CHECK(options.teacher_weight == 1.0);  // an integer is fine for a number
    CHECK(options.kd_temperature == 1.0);
    CHECK(kd.where() == "my.toml:1");
    CHECK(kd.where("teacher_weight") == "my.toml:2");
    CHECK(kd.where("kd_temperature") == "my.toml:1");
    CHECK(kd.has("teacher_weight"));
    CHECK_FALSE(kd.has("kd_temperature"));
    CHECK(kd.taken("kd_temperature"));
    CHECK_FALSE(kd.taken("other"));
    CHECK(root.where() == "my.toml");
    KdOptions untouched;
    root.table("absent").read(untouched);
    CHECK(untouched.teacher_weight == 0.9);
  }

  TEST_CASE("options: an unknown key is refused with its line and the nearest one") {
    RecipeSource source = load("[kd]\nkd_wieght = 0.5\n");
    OptionTable kd = source.root().table("kd");
    KdOptions options;
    kd.read(options);
    CHECK(refusal([&] { kd.finish(); }) == "my.toml:2: unknown key 'kd_wieght'; did you mean 'teacher_weight'?");
    RecipeSource tables = load("seed = 1\n[optimzer]\nlr = 1\n");
    OptionTable root = tables.root();
    uint64_t seed = 0;
    root.take("seed", seed, "");
    root.table("optimizer");
    CHECK(refusal([&] { root.finish(); }) == "my.toml:2: unknown key 'optimzer'; did you mean 'optimizer'?");
    RecipeSource nothing_known = load("x = 1\n");
    CHECK(refusal([&] { nothing_known.root().finish(); }) == "my.toml:1: unknown key 'x'");
  }

  TEST_CASE("options: the wrong type names line, path, what came and what was expected") {
    RecipeSource source = load(
        "[model.student]\ni = \"abc\"\nf = 2.5\nb = 1\nneg = -1\nbig = 5000000000\nlist = [1, \"x\"]\ndate = "
        "2024-01-01\nt = { a = 1 }\narray = [{ a = 1 }]\n");
    OptionTable table = source.root().table("model").table("student");
    bool flag = false;
    int64_t integer = 0;
    uint64_t natural = 0;
    int small = 0;
    double number = 0;
    std::string text;
    std::vector<std::string> texts;
    std::vector<int64_t> integers;
    CHECK(refusal([&] { table.take("i", integer, "FFN channels"); }) ==
          "my.toml:2: model.student.i: got \"abc\" (string), expected an integer (FFN channels)");
    CHECK(refusal([&] { table.take("f", integer, ""); }) ==
          "my.toml:3: model.student.f: got 2.5 (float), expected an integer");
    CHECK(refusal([&] { table.take("b", flag, ""); }) ==
          "my.toml:4: model.student.b: got 1 (integer), expected true or false");
    CHECK(refusal([&] { table.take("neg", natural, ""); }) ==
          "my.toml:5: model.student.neg: got -1 (integer), expected an integer from 0");
    CHECK(contains(refusal([&] { table.take("big", small, ""); }),
                   "my.toml:6: model.student.big: got 5000000000 (integer), expected an integer from -2147483648"));
    CHECK(contains(refusal([&] { table.take("list", texts, ""); }),
                   "got [1 (integer), \"x\" (string)] (array), expected an array of strings"));
    CHECK(contains(refusal([&] { table.take("list", integers, ""); }), "expected an array of integers"));
    CHECK(contains(refusal([&] { table.take("date", text, ""); }), "got a date or time, expected a string"));
    CHECK(contains(refusal([&] { table.take("t", number, ""); }), "got a table, expected a number"));
    CHECK(contains(refusal([&] { table.take("array", text, ""); }), "got an array of tables"));
    CHECK(contains(refusal([&] { table.table("f"); }), "got 2.5 (float), expected a table"));
    CHECK(contains(refusal([&] { table.tables("t"); }), "got a table, expected an array of tables, [[t]]"));
    table.take("big", integer, "");
    CHECK(integer == 5'000'000'000);
  }

  TEST_CASE("options: counts may be written 1.2e6, but must be whole") {
    RecipeSource source = load("a = 1.2e6\nb = 77\nc = 1.5\nd = 1e30\ne = -2e3\nf = nan\n");
    OptionTable root = source.root();
    int64_t value = 0;
    root.take_count("a", value, "");
    CHECK(value == 1'200'000);
    value = 0;
    root.take("a", value, "");  // visit_fields names it again
    CHECK(value == 1'200'000);
    root.take_count("b", value, "");
    CHECK(value == 77);
    root.take_count("e", value, "");
    CHECK(value == -2000);
    for (const char* key : {"c", "d", "f"})
      CHECK(contains(refusal([&] { root.take_count(key, value, ""); }), "expected a whole number"));
  }

  TEST_CASE("recipe: stages, models and mixtures in the order of the file") {
    RecipeSource source = load(kRecipe);
    const Everything all(source.root());
    CHECK(all.name == "demo");
    CHECK(all.stages == Paths{"core", "core.long"});
    CHECK(all.tokens == std::vector<int64_t>{1'200'000, 0});
    CHECK(all.rates == std::vector<double>{3e-4, 1});
    CHECK(all.mixture == Paths{"prose", "code"});
    CHECK(load(kRecipe).root().table("model").table_names() == Paths{"source", "student"});
    CHECK(load("[z]\n[a]\n[m]\n").root().table_names() == Paths{"z", "a", "m"});
  }

  TEST_CASE("overrides: a stage's name first, then a path of tables; the origin is --set") {
    RecipeSource source = load(kRecipe, {{"core.tokens", "2e9"},
                                         {"core.long.tokens", "5"},
                                         {"model.student.intermediate_size", "8064"},
                                         {"seed", "9"},
                                         {"tags", "[\"x\"]"},
                                         {"core.lr", "1e-3"},
                                         {"core.lr", "2e-3"}});
    OptionTable root = source.root();
    const Everything all(root);
    CHECK(all.tokens == std::vector<int64_t>{2'000'000'000, 5});
    CHECK(all.width == 8064);
    CHECK(all.seed == 9);
    CHECK(all.tags == Paths{"x"});
    CHECK(all.rates[0] == 2e-3);  // the last one wins
    CHECK(root.where("seed") == "--set");
    CHECK(root.tables("stage")[0].where("tokens") == "--set");
    CHECK(root.tables("stage")[0].where("name") == "my.toml:11");
  }

  TEST_CASE("overrides: tables and arrays of tables may be set whole, missing tables come into being") {
    RecipeSource source =
        load(kRecipe, {{"core.mixture", "[{ domain = \"maths\" }]"}, {"model.tiny", "{ intermediate_size = 3 }"}});
    const Everything all(source.root());
    CHECK(all.mixture == Paths{"maths"});
    CHECK(all.width == 3);
    RecipeSource fresh = load("", {{"a.b.c", "1"}});
    int64_t value = 0;
    fresh.root().table("a").table("b").take("c", value, "");
    CHECK(value == 1);
  }

  TEST_CASE("overrides: what they refuse") {
    const auto text = [](const Override& override) {
      return refusal([&] { Everything all(load(kRecipe, {override}).root()); });
    };
    CHECK(text({"croe.tokens", "1"}) == "--set: unknown key 'croe'; did you mean 'core'?");
    CHECK(text({"core.tokesn", "1"}) == "--set: unknown key 'tokesn'; did you mean 'tokens'?");
    CHECK(text({"core.tokens", "\"many\""}) ==
          "--set: core.tokens: got \"many\" (string), expected a whole number such as 250000 or 2.5e5 (tokens to train "
          "on)");
    CHECK(contains(text({"core.from", "dense"}), "a string needs quotes: --set 'core.from=\"...\"'"));
    CHECK(contains(text({"core.from", "1\nseed = 3"}), "more than one value"));
    CHECK(contains(text({"core.from", ""}), "not TOML"));
    CHECK(contains(text({"core", "1"}), "'core' is a stage: name a key of it, core.<key>"));
    CHECK(contains(text({"stage.tokens", "1"}), "addressed by its name: core, core.long"));
    CHECK(contains(text({"core.mixture.domain", "1"}), "[[core.mixture]] is an array of tables"));
    CHECK(contains(text({"seed.x", "1"}), "'seed' is 7 (integer), no table"));
    for (const char* path : {"", ".", "a.", ".a", "a..b", "a\x1b.b"}) {
      CAPTURE(path);
      const std::string refused = text({path, "1"});
      CHECK(contains(refused, "expected <key>, <table>.<key> or <stage name>.<key>"));
      CHECK_FALSE(contains(refused, "\x1b"));
    }
  }

  TEST_CASE("unset: removes values, tables and keys of stages; what is not there is refused") {
    RecipeSource source =
        load(kRecipe, {{"core.tokens", "5"}}, {"name", "core.tokens", "core.mixture", "model.source"});
    const Everything all(source.root());
    CHECK(all.name == "unnamed");
    CHECK(all.tokens[0] == 5);  // set after it was unset
    CHECK(all.mixture.empty());
    CHECK(all.width == 256);
    CHECK(refusal([] { load(kRecipe, {}, {"core.tokesn"}); }) ==
          "--unset core.tokesn: 'core.tokesn' is not in the recipe; did you mean 'tokens'?");
    CHECK(refusal([] { load(kRecipe, {}, {"croe.tokens"}); }) ==
          "--unset croe.tokens: 'croe' is not in the recipe; did you mean 'core'?");
  }

  TEST_CASE("resolved: every known key, root keys first, with origins") {
    RecipeSource source = load(kRecipe, {{"core.lr", "0.5"}});
    Everything all(source.root());
    CHECK(source.resolved(true) == R"(name = "demo"  # my.toml:2
seed = 7  # my.toml:3
threads = 0  # default
quiet = false  # default
tags = ["a\"b", "c\\d\n\u001B"]  # default
widths = []  # default

[model.source]
intermediate_size = 768  # my.toml:6

[model.student]
intermediate_size = 256  # my.toml:8

[[stage]]
name = "core"  # my.toml:11
from = ""  # default
tokens = 1200000  # my.toml:12
lr = 0.5  # --set

[[stage.mixture]]
domain = "prose"  # my.toml:14

[[stage.mixture]]
domain = "code"  # my.toml:16

[[stage]]
name = "core.long"  # my.toml:19
from = ""  # default
tokens = 0  # default
lr = 1.0  # my.toml:20
)");
  }

  TEST_CASE("resolved: reads back as itself, with and without origins") {
    RecipeSource source = load(
        kRecipe,
        {{"core.lr", "1e-20"}, {"tags", "[\"\\u0000\", \"é木\", \"\"]"}, {"widths", "[1, -2, 9223372036854775807]"}});
    Everything first(source.root());
    const std::string resolved = source.resolved(false);
    for (const bool origins : {false, true}) {
      RecipeSource again = load(source.resolved(origins));
      const Everything second(again.root());
      CHECK(again.resolved(false) == resolved);
      CHECK(second.tags == first.tags);
      CHECK(second.rates == first.rates);
      CHECK(second.widths == first.widths);
      CHECK(second.mixture == first.mixture);
    }
  }

  TEST_CASE(
      "resolved: an ablation's models and stages keep their defaults to themselves, for an arm may set what they "
      "follow") {
    RecipeSource source =
        load("[model.a]\n[[stage]]\nname = \"core\"\n[[stage.mixture]]\ndomain = \"prose\"\n[[arm]]\n");
    const auto read = [](RecipeSource& recipe) {
      OptionTable root = recipe.root();
      int seed = 1, width = 8;
      double share = 1, lr = 0.5, weight = 1;
      std::string name;
      root.take("seed", seed, "");
      OptionTable model = root.table("model").table("a");
      model.take("width", width, "");
      model.table("shares").take("ffn", share, "");
      for (OptionTable stage : root.tables("stage")) {
        stage.take("name", name, "");
        stage.take("lr", lr, "");
        for (OptionTable row : stage.tables("mixture")) {
          row.take("domain", name, "");
          row.take("weight", weight, "");
        }
      }
      for (OptionTable arm : root.tables("arm")) arm.take("reference", name, "");
      return recipe.resolved(false);
    };
    const std::string resolved = read(source);
    CHECK(resolved == R"(seed = 1

[model.a]
# width = 8

# [model.a.shares]
# ffn = 1.0

[[stage]]
name = "core"
# lr = 0.5

[[stage.mixture]]
domain = "prose"
# weight = 1.0

[[arm]]
reference = "prose"
)");
    RecipeSource again = load(resolved);
    CHECK(read(again) == resolved);
  }

  TEST_CASE("resolved: numbers keep their type and every bit") {
    for (const double value : {0.1, 1.0, 1e22, 1e-7, -0.0, 1.0 / 3, 5e-324, 1.7976931348623157e308}) {
      RecipeSource source = load("");
      double taken = value;
      source.root().take("x", taken, "");
      RecipeSource again = load(source.resolved(false));
      double back = 5;
      again.root().take("x", back, "");
      CHECK(back == value);
      CHECK(std::signbit(back) == std::signbit(value));
      int64_t integer = 0;
      CHECK(refusal([&] { again.root().take("x", integer, ""); }) != "");  // still a float
    }
    RecipeSource source = load("[\"a key\"]\n\"x.y\" = inf\n");
    double infinite = 0;
    source.root().table("a key").take("x.y", infinite, "");
    CHECK(source.resolved(false) == "[\"a key\"]\n\"x.y\" = inf\n");
  }
}

TEST_SUITE("faults") {
  TEST_CASE("a file that is no recipe: line and column, limits, names") {
    CHECK(contains(refusal([] { load("seed = 1\nname = \"x\n"); }), "my.toml:2:"));
    CHECK(contains(refusal([] { load("a = 1\na = 2\n"); }), "my.toml:2:"));
    CHECK(contains(refusal([] { load("a = \xff\n"); }), "my.toml:1:"));
    CHECK(contains(refusal([] { load("a = 99999999999999999999\n"); }), "my.toml:1:"));
    for (const char* letter : {"\u00e9", "\u0416", "\u5b57", "\U0001f600"})  // in a name and a comment they are welcome
      for (const std::string& line : {fmt::format("a = 1 {}\n", letter), fmt::format("{} = 1\n", letter)})
        CHECK(contains(refusal([&] { load("b = 1  # " + std::string(letter) + "\n" + line); }), "my.toml:2:"));
    CHECK(contains(refusal([] { load("x = 1\n\"\\u001b[2J\" = 1\n"); }),
                   "my.toml:2: the key '\\x1b[2J' contains control characters"));
    CHECK(contains(refusal([] { RecipeSource::load("absent.toml", {}, {}); }), "absent.toml: No such file"));
    CHECK(contains(refusal([] { load(std::string((1 << 20) + 1, '#')); }), "at most 1048576"));
    CHECK(refusal([] { load("# only a comment"); }) == "");
    CHECK(caught([] { load(""); }).code == 0);
  }

  TEST_CASE("nesting is limited before it can hurt") {
    const auto deep = [](const std::string& open, const std::string& close, int depth) {
      std::string text = "x = ";
      for (int i = 0; i < depth; ++i) text += open;
      text += "1";
      for (int i = 0; i < depth; ++i) text += close;
      return text + "\n";
    };
    const auto dotted = [](int parts) {
      std::string text = "a";
      for (int i = 1; i < parts; ++i) text += ".a";
      return text;
    };
    CHECK(caught([&] { load(deep("[", "]", 20)); }).code == 0);
    CHECK(caught([&] { load(dotted(20) + " = 1\n"); }).code == 0);
    for (const int depth : {40, 300, 100'000}) {
      CAPTURE(depth);
      CHECK(refusal([&] { load(deep("[", "]", depth)); }) != "");
      CHECK(refusal([&] { load(deep("{a=", "}", depth)); }) != "");
      CHECK(refusal([&] { load(fmt::format("seed = 1\n{} = 1\n", dotted(depth))); }) != "");
      CHECK(refusal([&] { load(fmt::format("[{}]\n", dotted(depth))); }) != "");
      CHECK(refusal([&] { load("", {{dotted(depth), "1"}}); }) != "");
      CHECK(refusal([&] { load("", {{"x", deep("[", "]", depth).substr(4)}}); }) != "");
    }
    const std::string dots(500, '.');  // dots in strings and comments are only text
    CHECK(caught([&] {
            load("a = \"" + dots + "\\\"" + dots + "\" # " + dots + "\nb = '" + dots + "'\nc = \"\"\"\n" + dots +
                 "\"\n\"\"\"\nd = '''" + dots + "'''\n");
          }).code == 0);
    CHECK(contains(refusal([&] { load(fmt::format("a = '''\n\n'''\nb = \"\"\"\n\"\"\"\n{} = 1", dotted(50))); }),
                   "my.toml:6: a key of more than 32 parts"));
  }

  TEST_CASE("any cut or changed byte of a recipe is read or refused, never worse") {
    const std::string text = kRecipe;
    for (size_t i = 0; i < text.size(); ++i) {
      CAPTURE(i);
      const auto read = [](const std::string& bytes) {
        return caught([&] {
                 RecipeSource source = load(bytes);
                 Everything all(source.root());
                 source.resolved(true);
               })
            .code;
      };
      const int cut = read(text.substr(0, i));
      CHECK((cut == 0 || cut == 2));
      std::string damaged = text;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      const int changed = read(damaged);
      CHECK((changed == 0 || changed == 2));
    }
  }

  TEST_CASE("recipe: its own overrides, nested and quoted, with their places; an arm applies them and drops stages") {
    const std::string text =
        "x = 1\n[[stage]]\nname = \"a\"\n[[stage]]\nname = \"b\"\nfrom = \"a\"\nlabels = \"l\"\n[[stage]]\nname = "
        "\"l\"\n[[stage]]\nname = \"e\"\nof = [\"a\", "
        "\"l\", "
        "\"b\"]\n[[arm]]\nset = { \"b.lr\" = 0.5, b.mixture = [{ domain = \"p\", weight = 2 }], b.deep.on = true, y = "
        "[1, 2] }\n";
    RecipeSource source = load(text);
    const std::vector<Override> set = source.root().tables("arm")[0].overrides("set");
    REQUIRE(set.size() == 4);
    CHECK(set[0].path == "b.lr");
    CHECK(set[0].value == "0.5");
    CHECK(set[0].where == "my.toml:14");
    CHECK(set[1].path == "b.mixture");
    CHECK(set[1].value == "[{domain = \"p\", weight = 2}]");
    CHECK(set[2].path == "b.deep.on");
    CHECK(set[2].value == "true");
    CHECK(set[3].value == "[1, 2]");
    CHECK(contains(source.resolved(false), "[arm.set]\n\"b.lr\" = 0.5\n"));

    RecipeSource arm = load(text);
    arm.make_arm({"arm", "absent"}, set, {"l"}, "my.toml:13");
    OptionTable root = arm.root();
    CHECK(!root.has("arm"));
    std::vector<OptionTable> stages = root.tables("stage");
    REQUIRE(stages.size() == 3);
    CHECK(!stages[1].has("labels"));
    CHECK(stages[1].where("lr") == "my.toml:14");
    CHECK(stages[1].tables("mixture").size() == 1);
    std::vector<std::string> of;
    stages[2].take("of", of, "");
    CHECK(of == std::vector<std::string>{"a", "b"});
    std::vector<std::string> one;
    load("one = \"alone\"\n").root().take("one", one, "");
    CHECK(one == std::vector<std::string>{"alone"});

    CHECK(contains(refusal([&] { load(text).make_arm({}, {}, {"a"}, "my.toml:12"); }),
                   "my.toml:12: drop: stage 'b' has from = \"a\"; drop 'b' as well, or set b.from"));
    CHECK(contains(refusal([&] { load(text).make_arm({}, {}, {"ll"}, "my.toml:12"); }),
                   "no stage is named 'll'; did you mean 'l'?"));
    CHECK(contains(refusal([&] {
                     load(text).make_arm({}, {{.path = "b", .value = "1", .where = "my.toml:13"}}, {}, "my.toml:12");
                   }),
                   "my.toml:13: 'b' is a stage"));
    CHECK(contains(refusal([&] {
                     load(text).make_arm({}, {{.path = "b.lr", .value = "nope", .where = "my.toml:13"}}, {},
                                         "my.toml:12");
                   }),
                   "my.toml:13"));
  }
}
