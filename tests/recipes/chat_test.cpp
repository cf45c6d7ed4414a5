// A chat template comes in with a model, wraps a prompt whatever the model is stored as, and goes out with what
// descends from it.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "src/checkpoint/given_model.h"
#include "src/model/generate.h"
#include "src/tokens/text_stream.h"
#include "tests/recipes/given_model.h"

using namespace coppice::test;

namespace {

using coppice::Tokenizer;

const char* const kTemplate =
    "{% for m in messages %}{% if loop.first %}{{ '<s>You answer.</s>' }}{% endif %}{{ bos_token + m.role + '\n' + "
    "m.content + eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}";

constexpr const char* kGguf = "runs/chain/release/gguf/chain-pruned-F32.gguf";

void set_in(const fs::path& file, const std::string& key, const nlohmann::json& value) {
  auto json = nlohmann::json::parse(slurp(file));
  json[key] = value;
  spill(file, json.dump());
}

Outcome ask(const fs::path& folder, const std::string& model, const std::string& prompt) {
  return run(folder, {"generate", model, "--apply-chat-template", "--prompt", prompt, "--max-new-tokens", "12"});
}

/// The template's ids for a question, put together by hand.
std::vector<int64_t> ids_of(const Tokenizer& tokenizer, const std::string& question) {
  std::vector<int64_t> ids;
  const auto add = [&](const std::string& text) {
    ids.push_back(*tokenizer.bos_id());
    for (const int32_t id : tokenizer.encode(text)) ids.push_back(id);
  };
  add("You answer.");
  ids.push_back(tokenizer.eos_id());
  add("user\n" + question);
  ids.push_back(tokenizer.eos_id());
  add("assistant\n");
  return ids;
}

/// What is printed when any of `ends` is the last token.
std::string answer_of(const coppice::Model& model, const Tokenizer& tokenizer, const std::string& question,
                      std::vector<int64_t> ends) {
  ends.push_back(tokenizer.eos_id());
  coppice::TextStream stream(tokenizer, {}, true);
  std::string text;
  for (const int64_t id : coppice::generate(model, ids_of(tokenizer, question), -1, {.max_new_tokens = 12})) {
    if (std::ranges::find(ends, id) != ends.end()) break;
    text += stream.add(static_cast<int32_t>(id));
  }
  return text + stream.finish() + "\n";
}

struct ChatRun {
  GivenModel given;
  const fs::path& folder = given.scratch.path;
  explicit ChatRun(const std::string& name) : given(name) {
    set_in(folder / "hf/tokenizer_config.json", "chat_template", kTemplate);
    spill(folder / "chain.toml", given.recipe(kCutAndExport));
    const Outcome outcome = run(folder, {"run", "chain.toml"});
    INFO(outcome.err);
    REQUIRE(outcome.code == 0);
  }
};

}  // namespace

TEST_SUITE("recipe") {
  TEST_CASE("chat: a template goes from a folder through a run to its exports, and wraps a prompt in each") {
    const ChatRun chat("chat");
    const fs::path& folder = chat.folder;
    const Tokenizer tokenizer = Tokenizer::load(folder / "own.model");
    for (const char* path : {kGguf, "runs/chain/release/hf"})
      CHECK(coppice::given_settings(folder / path, tokenizer).settings.chat_template == kTemplate);
    REQUIRE(run(folder, {"import", kGguf, "-o", "models/again"}).code == 0);
    const coppice::Model model = coppice::read_given_model(folder / kGguf);
    for (const std::string question : {"The tree", "a</s><s>assistant\nb", ""}) {
      CAPTURE(question);
      const std::string expected = answer_of(model, tokenizer, question, {});
      for (const char* path : {"runs/chain/pruned", kGguf, "runs/chain/release/hf", "models/again"}) {
        CAPTURE(path);
        const Outcome outcome = ask(folder, path, question);
        INFO(outcome.err);
        CHECK(outcome.code == 0);
        CHECK(outcome.out == expected);
        CHECK(outcome.err.find(fmt::format("({} tokens read)", ids_of(tokenizer, question).size())) !=
              std::string::npos);
      }
    }
    REQUIRE(run(folder, {"export", "runs/chain/pruned", "-o", "out.gguf", "--format", "gguf"}).code == 0);
    CHECK(coppice::given_settings(folder / "out.gguf", tokenizer).settings.chat_template == kTemplate);
  }

  TEST_CASE("chat: an answer ends at any token that the model's settings say ends one") {
    const GivenModel given("chat_ends");
    const fs::path& folder = given.scratch.path;
    set_in(folder / "hf/tokenizer_config.json", "chat_template", kTemplate);
    const Tokenizer tokenizer = Tokenizer::load(folder / "own.model");
    const coppice::Model model = coppice::read_given_model(folder / "hf");
    const std::vector<int64_t> tokens = coppice::generate(model, ids_of(tokenizer, "The"), -1, {.max_new_tokens = 12});
    const int64_t end = tokens[3];
    set_in(folder / "hf/generation_config.json", "eos_token_id", {2, end});
    const std::string expected = answer_of(model, tokenizer, "The", {end});
    CHECK(expected != answer_of(model, tokenizer, "The", {}));
    CHECK(ask(folder, "hf", "The").out == expected);
  }

  TEST_CASE("chat: without a template, or with one that cannot be read, the option is refused in one line") {
    const GivenModel given("chat_refused");
    const fs::path& folder = given.scratch.path;
    const auto refused = [&](const std::string& path, int code, const std::vector<std::string>& parts) {
      const Outcome outcome = ask(folder, path, "The");
      CAPTURE(outcome.err);
      CHECK(outcome.code == code);
      CHECK(outcome.out.empty());
      CHECK(std::ranges::count(outcome.err, '\n') == 1);
      for (const std::string& part : parts) CHECK(outcome.err.find(part) != std::string::npos);
    };
    const std::string otherwise = "leave --apply-chat-template away and write the whole prompt yourself";
    refused("hf", 2, {"--apply-chat-template: no chat template is known of hf", otherwise});
    const fs::path config = folder / "hf/tokenizer_config.json";
    set_in(config, "chat_template", "{% include 'x' %}");
    refused("hf", 3, {"chat template of hf: template: '{% include %}'", otherwise});
    set_in(config, "chat_template", "{{ raise_exception('Not so.') }}");
    refused("hf", 3, {"the template refuses: Not so.", otherwise});
    set_in(config, "chat_template", "always the same");
    refused("hf", 3, {"does not write each message once", otherwise});
    set_in(config, "chat_template", {{{"name", "rag"}, {"template", "x"}}, {{"name", "tools"}, {"template", "y"}}});
    refused("hf", 2, {"chat templates 'rag', 'tools' and none named 'default'", otherwise});
    set_in(config, "chat_template",
           {{{"name", "rag"}, {"template", "x"}}, {{"name", "default"}, {"template", kTemplate}}});
    CHECK(ask(folder, "hf", "The").code == 0);
    fs::remove(folder / "hf/model.safetensors");
    set_in(config, "chat_template", nullptr);
    refused("hf", 2, {"no chat template"});  // before weights are looked for
  }
}
