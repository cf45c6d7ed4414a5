#include "src/model/config.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/base/errors.h"

using namespace coppice;

namespace {

/// The error's text and code, or an empty text when nothing was thrown.
template <class Function>
std::pair<std::string, ExitCode> refusal(Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    return {error.what(), error.code()};
  }
  return {"", ExitCode::done};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("config: every preset passes its own check and survives JSON") {
    CHECK(preset_names().size() == 7);
    for (const std::string& name : preset_names()) {
      const ModelConfig config = preset(name, "model");
      CHECK_NOTHROW(check_config(config, name, false));
      CHECK(config_from_json(to_json(config), "file.json") == config);
    }
  }

  TEST_CASE("config: JSON has Hugging Face's keys, one width when all layers agree") {
    ModelConfig config = preset("demo-source", "model");
    Json json = to_json(config);
    CHECK(
        json.dump() ==
        R"({"head_dim":32,"hidden_size":96,"intermediate_size":768,"max_position_embeddings":1024,"num_attention_heads":3,"num_hidden_layers":3,)"
        R"("num_key_value_heads":1,"qk_norm":true,"rms_norm_eps":1e-05,"rope_theta":500000.0,"tie_word_embeddings":true,"vocab_size":512})");
    config.intermediate_size = {768, 256, 512};
    json = to_json(config);
    CHECK(json["intermediate_size"].dump() == "[768,256,512]");
    CHECK(config_from_json(json, "file.json") == config);
  }

  TEST_CASE("config: an unknown preset names its neighbour") {
    const auto [text, code] = refusal([] { preset("demo-sorce", "my.toml:3"); });
    CHECK(contains(text, "my.toml:3"));
    CHECK(contains(text, "did you mean 'demo-source'?"));
    CHECK(code == ExitCode::recipe);
  }

  TEST_CASE("config: each wrong size is refused with its number") {
    const auto text_of = [](auto&& change) {
      ModelConfig config = preset("test", "model");
      change(config);
      const auto [text, code] = refusal([&] { check_config(config, "my.toml:7", false); });
      CHECK(code == ExitCode::recipe);
      CHECK(refusal([&] { check_config(config, "model/manifest.json", true); }).second == ExitCode::bad_file);
      return text;
    };
    CHECK(contains(text_of([](ModelConfig& c) { c.vocab_size = 0; }), "vocab_size: got 0, expected 1 to"));
    CHECK(contains(text_of([](ModelConfig& c) { c.hidden_size = -4; }), "hidden_size: got -4"));
    CHECK(contains(text_of([](ModelConfig& c) { c.num_hidden_layers = 5000; }),
                   "num_hidden_layers: got 5000, expected 1 to 1024"));
    CHECK(contains(text_of([](ModelConfig& c) { c.num_attention_heads = 3, c.num_key_value_heads = 2; }),
                   "got 3, expected a multiple of num_key_value_heads (2)"));
    CHECK(contains(text_of([](ModelConfig& c) { c.head_dim = 15; }), "head_dim: got 15, expected an even number"));
    CHECK(contains(text_of([](ModelConfig& c) { c.intermediate_size.pop_back(); }),
                   "got 1 widths, expected one for each of 2 layers"));
    CHECK(contains(text_of([](ModelConfig& c) { c.intermediate_size[1] = 0; }), "layer 1 has 0"));
    CHECK(contains(text_of([](ModelConfig& c) { c.rope_theta = 0; }), "rope_theta: got 0"));
    CHECK(contains(text_of([](ModelConfig& c) { c.rms_norm_eps = -1; }), "rms_norm_eps: got -1"));
    CHECK(contains(text_of([](ModelConfig& c) { c.max_position_embeddings = 0; }), "max_position_embeddings: got 0"));
  }

  TEST_CASE("config: JSON from a damaged file is refused, never trusted") {
    const Json good = to_json(preset("test", "model"));
    const auto text_of = [&](auto&& change) {
      Json json = good;
      change(json);
      const auto [text, code] = refusal([&] { config_from_json(json, "model/manifest.json"); });
      CHECK(code == ExitCode::bad_file);
      CHECK(contains(text, "model/manifest.json"));
      return text;
    };
    CHECK(contains(text_of([](Json& j) { j.erase("hidden_size"); }), "hidden_size"));
    CHECK(contains(text_of([](Json& j) { j.erase("intermediate_size"); }), "intermediate_size: missing"));
    CHECK(contains(text_of([](Json& j) { j["hidden_size"] = -3; }), "hidden_size"));
    CHECK(contains(text_of([](Json& j) { j["hidden_size"] = 32.5; }), "hidden_size"));
    CHECK(contains(text_of([](Json& j) { j["hidden_size"] = UINT64_MAX; }), "hidden_size: got 18446744073709551615"));
    CHECK(contains(text_of([](Json& j) { j["num_hidden_layers"] = uint64_t{1} << 40; }),
                   "num_hidden_layers: got 1099511627776"));
    CHECK(contains(text_of([](Json& j) { j["intermediate_size"] = {96, "x"}; }), "intermediate_size"));
    CHECK(contains(text_of([](Json& j) { j["intermediate_size"] = {uint64_t{96}}; }), "got 1 widths"));
    CHECK(contains(text_of([](Json& j) { j["qk_norm"] = 1; }), "qk_norm: expected true or false"));
    CHECK(contains(text_of([](Json& j) { j["rope_thet"] = 1; }), "unknown key 'rope_thet'"));
    CHECK(contains(text_of([](Json& j) { j = Json::array(); }), "expected an object"));
  }
}
