// What a Hugging Face folder says beside weights and ids: read with its limits, kept in one file, written by an export.
#include "src/checkpoint/hf_settings.h"

#include <doctest/doctest.h>

#include "src/checkpoint/hf_export.h"
#include "tests/checkpoint/tiny.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

const char* const kTemplate = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}";

struct SettingsFolder {
  ScratchFolder scratch;
  fs::path folder = scratch.path / "theirs";
  Tokenizer tokenizer = tiny_tokenizer(scratch.path);

  SettingsFolder() { fs::create_directories(folder); }
  void put(const char* name, const Json& json) const { spill(folder / name, json.dump()); }
  ReadSettings read() const { return read_hf_settings(folder, tokenizer); }
  std::string left_behind() const {
    std::string text;
    for (const std::string& line : read().left_behind) text += line + "\n";
    return text;
  }
};

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hf_settings: a folder that says nothing gives nothing") {
    const SettingsFolder theirs;
    const ReadSettings read = theirs.read();
    CHECK(read.left_behind.empty());
    CHECK(read.settings.summary() == "");
    CHECK_FALSE(read.settings.add_bos.has_value());
    CHECK(read.settings.split_special_tokens);
  }

  TEST_CASE("hf_settings: end-of-text lists, generation, chat template and BOS are kept, and an export writes them") {
    SettingsFolder theirs;
    theirs.put("config.json", {{"eos_token_id", {2, 3}}, {"bos_token_id", 1}, {"pad_token_id", nullptr}});
    theirs.put("generation_config.json", {{"eos_token_id", {2, 3, 7}},
                                          {"temperature", 0.6},
                                          {"do_sample", true},
                                          {"transformers_version", "4.1"},
                                          {"_from_model_config", true}});
    theirs.put("tokenizer_config.json", {{"chat_template", kTemplate},
                                         {"add_bos_token", true},
                                         {"bos_token", {{"content", "<s>"}, {"lstrip", false}}},
                                         {"eos_token", "</s>"},
                                         {"pad_token", "</s>"}});
    const auto [settings, left_behind] = theirs.read();
    CHECK(left_behind.empty());
    CHECK(settings.config_ids == Json::parse(R"({"eos_token_id":[2,3],"bos_token_id":1})"));
    CHECK(settings.generation == Json::parse(R"({"eos_token_id":[2,3,7],"temperature":0.6,"do_sample":true})"));
    CHECK(settings.special_tokens == Json::parse(R"({"bos_token":"<s>","eos_token":"</s>","pad_token":"</s>"})"));
    CHECK(settings.add_bos == true);
    CHECK_FALSE(settings.split_special_tokens);
    CHECK(settings.summary() == "end-of-text ids [2,3,7], generation settings, chat template, add_bos_token = true");

    save_hf_settings(theirs.scratch.path / "kept.json", settings);
    const HfSettings kept = load_hf_settings(theirs.scratch.path / "kept.json");
    const fs::path ours = theirs.scratch.path / "ours";
    export_hf(ours, tiny_model(tiny_config(), 9), theirs.tokenizer, "f32", {.settings = &kept});
    CHECK(read_json(ours / "config.json")["eos_token_id"] == Json({2, 3}));
    CHECK(read_json(ours / "config.json")["bos_token_id"] == 1);
    const Json generation = read_json(ours / "generation_config.json"),
               tokenizer = read_json(ours / "tokenizer_config.json");
    CHECK(generation["eos_token_id"] == Json({2, 3, 7}));
    CHECK(generation["temperature"] == 0.6);
    CHECK(tokenizer["chat_template"] == kTemplate);
    CHECK(tokenizer["add_bos_token"] == true);
    CHECK(tokenizer["pad_token"] == "</s>");
    CHECK(tokenizer["split_special_tokens"] == false);
    CHECK(read_json(ours / "tokenizer.json")["post_processor"]["single"][0]["SpecialToken"]["id"] == "<s>");
    CHECK_FALSE(fs::exists(ours / "chat_template.jinja"));

    const auto [again, lost] = read_hf_settings(ours, theirs.tokenizer);  // from hand to hand
    CHECK(lost.empty());
    CHECK(again.generation["eos_token_id"] == settings.generation["eos_token_id"]);
    CHECK(again.chat_template == settings.chat_template);
    CHECK(again.add_bos == true);
    CHECK_FALSE(again.split_special_tokens);
  }

  TEST_CASE("hf_settings: a list in config.json alone rules generation as well") {
    SettingsFolder theirs;
    theirs.put("config.json", {{"eos_token_id", {2, 3}}});
    const HfSettings settings = theirs.read().settings;
    export_hf(theirs.scratch.path / "ours", tiny_model(tiny_config(), 9), theirs.tokenizer, "f32",
              {.settings = &settings});
    CHECK(read_json(theirs.scratch.path / "ours" / "generation_config.json")["eos_token_id"] == Json({2, 3}));
  }

  TEST_CASE("hf_settings: a template file goes before the one in tokenizer_config.json and is written as a file") {
    SettingsFolder theirs;
    theirs.put("tokenizer_config.json", {{"chat_template", "other"}});
    spill(theirs.folder / "chat_template.jinja", kTemplate);
    const HfSettings settings = theirs.read().settings;
    CHECK(settings.chat_template == kTemplate);
    export_hf(theirs.scratch.path / "ours", tiny_model(tiny_config(), 9), theirs.tokenizer, "f32",
              {.settings = &settings});
    CHECK(slurp(theirs.scratch.path / "ours" / "chat_template.jinja") == kTemplate);
    fs::remove(theirs.folder / "chat_template.jinja");
    theirs.put(
        "tokenizer_config.json",
        {{"chat_template", {{{"name", "default"}, {"template", "a"}}, {{"name", "tool_use"}, {"template", "b"}}}}});
    CHECK(theirs.read().settings.chat_template.size() == 2);
  }

  TEST_CASE("hf_settings: whether BOS opens a text: the key, else the post-processor, else the class") {
    SettingsFolder theirs;
    theirs.put("tokenizer_config.json", {{"tokenizer_class", "LlamaTokenizer"}});
    CHECK(theirs.read().settings.add_bos == true);
    theirs.put("tokenizer.json", {{"post_processor", nullptr}});
    CHECK(theirs.read().settings.add_bos == false);
    theirs.put(
        "tokenizer.json",
        {{"post_processor", {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}}}}});
    CHECK(theirs.read().settings.add_bos == true);
    theirs.put("tokenizer_config.json", {{"add_bos_token", false}});
    CHECK(theirs.read().settings.add_bos == false);
  }

  TEST_CASE("hf_settings: tokens that a folder adds to its tokenizer.model are named") {
    SettingsFolder theirs;
    CHECK(added_tokens(theirs.folder, theirs.tokenizer).empty());
    theirs.put("added_tokens.json", {{"[PAD]", 512}, {"<s>", 1}, {"<x>", "513"}});
    theirs.put("tokenizer_config.json", {{"added_tokens_decoder",
                                          {{"512", {{"content", "[PAD]"}}},
                                           {"513", {{"content", "<|im_end|>"}}},
                                           {"2", {{"content", "</s>"}}},
                                           {"x", 3}}}});
    CHECK(added_tokens(theirs.folder, theirs.tokenizer) == std::vector<std::string>{"[PAD]", "<|im_end|>"});
  }
}

TEST_SUITE("faults") {
  TEST_CASE("hf_settings: what the tokenizer has no piece for, and what is no such thing, stays behind with a line") {
    SettingsFolder theirs;
    theirs.put("config.json", {{"eos_token_id", {2, 512, -1, "x", 1.5}}, {"pad_token_id", 32000}});
    theirs.put("generation_config.json", {{"eos_token_id", {9999}},
                                          {"pad_token_id", 600},
                                          {"top_p", 0.9},
                                          {"suppress_tokens", {5, 511}},
                                          {"bad_words_ids", {{5}, {7, 512}}}});
    theirs.put("tokenizer_config.json", {{"eos_token", "<|im_end|>"},
                                         {"pad_token", 3},
                                         {"chat_template", {1, 2}},
                                         {"add_eos_token", true},
                                         {"add_bos_token", "yes"}});
    const ReadSettings read = theirs.read();
    CHECK(read.settings.config_ids == Json::parse(R"({"eos_token_id":[2]})"));
    CHECK(read.settings.generation == Json::parse(R"({"top_p":0.9,"suppress_tokens":[5,511]})"));
    CHECK(read.settings.special_tokens.empty());
    CHECK(read.settings.chat_template.is_null());
    CHECK_FALSE(read.settings.add_bos.has_value());
    const std::string text = theirs.left_behind();
    for (const char* part : {"512 of eos_token_id in config.json: the tokenizer has 512 ids", "-1 of eos_token_id",
                             "32000 of pad_token_id", "9999 of eos_token_id in generation_config.json",
                             "eos_token \"<|im_end|>\": no piece", "chat_template of tokenizer_config.json",
                             "add_eos_token", "bad_words_ids: holds ids beyond"}) {
      CAPTURE(part);
      CHECK(has(text, part));
    }
  }

  TEST_CASE("hf_settings: rubbish in each file is no reason to refuse the model") {
    SettingsFolder theirs;
    const std::string deep = std::string(1000, '[') + std::string(1000, ']'),
                      large = "{\"a\":\"" + std::string(2 << 20, 'x') + "\"}";
    for (const char* name :
         {"generation_config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"})
      for (const std::string& rubbish : {std::string("{"), std::string("[]"), deep, std::string("\xff\xfe\x00x", 4),
                                         std::string("{\"a\":1,\"a\":2}"), large}) {
        CAPTURE(name);
        spill(theirs.folder / name, rubbish);
        const bool plain_text =
            name == std::string("chat_template.jinja") && rubbish[0] != '\xff' && rubbish.size() < (1 << 20);
        const bool fits =
            rubbish.size() > (1 << 20) && name[0] == 't';  // larger limits: the object holds nothing of ours
        CHECK((theirs.read().left_behind.size() == 1) == !(plain_text || fits));
        fs::remove(theirs.folder / name);
      }
    const HfSettings nothing;
    save_hf_settings(theirs.folder / "kept.json", nothing);
    flip_byte(theirs.folder / "kept.json", 30, 1);
    CHECK_THROWS_AS(load_hf_settings(theirs.folder / "kept.json"), UserError);
  }
}
