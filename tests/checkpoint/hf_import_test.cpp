// Reading foreign Hugging Face folders: what is not supported is named, every tensor is accounted for, nothing outside the folder is touched.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/safetensors.h"
#include "tests/checkpoint/scratch.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

std::string refusal_of(const fs::path& folder) {
  try {
    import_hf(folder);
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::bad_file);
    return error.what();
  }
  return "accepted";
}

/// A valid folder whose config.json and tensors a test changes and puts back.
struct Fixture {
  ScratchFolder scratch;
  fs::path folder = scratch.path() / "hf";
  Json config;
  std::vector<SafetensorsTensor> tensors;

  explicit Fixture(bool qk_norm = true) {
    export_hf(folder, tiny_model(tiny_config(qk_norm), 9), tiny_tokenizer(scratch.path()), "f32");
    config = read_json(folder / "config.json");
    for (const SafetensorsEntry& entry : read_safetensors_header(folder / "model.safetensors"))
      tensors.push_back({entry.name, read_safetensors_tensor(folder / "model.safetensors", entry)});
  }
  std::string refusal_with(const Json& changed) {
    spill(folder / "config.json", changed.dump());
    const std::string text = refusal_of(folder);
    spill(folder / "config.json", config.dump());
    return text;
  }
  std::string refusal_with(const std::vector<SafetensorsTensor>& changed) {
    write_safetensors(folder / "model.safetensors", changed);
    const std::string text = refusal_of(folder);
    write_safetensors(folder / "model.safetensors", tensors);
    return text;
  }
  Json with(const std::string& patch) const {
    Json changed = config;
    changed.update(Json::parse(patch));
    return changed;
  }
  SafetensorsTensor& tensor(std::vector<SafetensorsTensor>& list, const std::string& name) const {
    for (SafetensorsTensor& one : list)
      if (one.name == name) return one;
    throw std::runtime_error(name);
  }
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hf_import: what would change the mathematics is refused by name") {
    Fixture fixture;
    const std::pair<const char*, const char*> cases[] = {
        {R"({"architectures":["MistralForCausalLM"]})", "MistralForCausalLM"},
        {R"({"architectures":["LlamaForCausalLM"]})", "model_type"},
        {R"({"architectures":[]})", "architecture"},
        {R"({"quantization_config":{"quant_method":"gptq"}})", "quantization_config"},
        {R"({"attention_bias":true})", "attention_bias"},
        {R"({"mlp_bias":true})", "mlp_bias"},
        {R"({"use_sliding_window":true,"sliding_window":64})", "use_sliding_window"},
        {R"({"layer_types":["full_attention","sliding_attention"]})", "sliding_attention"},
        {R"({"hidden_act":"gelu"})", "hidden_act"},
        {R"({"rope_scaling":{"type":"linear","factor":2.0}})", "linear"},
        {R"({"rope_parameters":{"rope_type":"yarn","rope_theta":500000.0}})", "yarn"},
        {R"({"rope_parameters":{"rope_type":"default","rope_theta":10000.0}})", "contradict"},
        {R"({"partial_rotary_factor":0.5})", "partial_rotary_factor"},
        {R"({"hidden_size":0})", "hidden_size"},
        {R"({"hidden_size":-32})", "hidden_size"},
        {R"({"hidden_size":18446744073709551615})", "hidden_size"},
        {R"({"hidden_size":"32"})", "hidden_size"},
        {R"({"num_hidden_layers":1000000})", "num_hidden_layers"},
        {R"({"num_key_value_heads":3})", "num_key_value_heads"},
        {R"({"coppice_intermediate_sizes":[40]})", "coppice_intermediate_sizes"},
        {R"({"coppice_intermediate_sizes":[40,41]})", "coppice_intermediate_sizes"},
        {R"({"coppice_intermediate_sizes":[40,30]})", "not zero"},
    };
    for (const auto& [patch, message] : cases) {
      CAPTURE(patch);
      const std::string text = fixture.refusal_with(fixture.with(patch));
      CAPTURE(text);
      CHECK(text.find(message) != std::string::npos);
    }
    CHECK(refusal_of(fixture.folder) == "accepted");
  }

  TEST_CASE("hf_import: either generation of keys alone is enough, and harmless ones are ignored") {
    Fixture fixture;
    Json old_keys = fixture.config, new_keys = fixture.config;
    old_keys.erase("rope_parameters");
    new_keys.erase("rope_theta");
    new_keys.erase("rope_scaling");
    for (const Json& config : {old_keys, new_keys}) {
      spill(fixture.folder / "config.json", config.dump());
      CHECK(import_hf(fixture.folder).config == tiny_config());
    }
    CHECK(fixture.refusal_with(fixture.with(R"({"sliding_window":4096,"some_new_key":[1,2],"layer_types":["full_attention","full_attention"]})")) ==
          "accepted");
  }

  TEST_CASE("hf_import: defaults of absent keys") {
    Fixture fixture(false);
    Json config = fixture.config;
    for (const char* key : {"rope_parameters", "rope_theta", "rms_norm_eps", "head_dim", "max_position_embeddings"}) config.erase(key);
    spill(fixture.folder / "config.json", config.dump());
    const Model model = import_hf(fixture.folder);
    CHECK(model.config.head_dim == 8);
    CHECK(model.config.rope_theta == 10000.0);
    CHECK(model.config.rms_norm_eps == 1e-6);
    CHECK(model.config.max_position_embeddings == 2048);
    config.erase("num_key_value_heads");  // = heads: then k_proj has another shape
    CHECK(fixture.refusal_with(config).find("k_proj") != std::string::npos);
    config = fixture.config;
    config.erase("tie_word_embeddings");  // both families: untied
    CHECK(fixture.refusal_with(config).find("lm_head.weight is missing") != std::string::npos);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("hf_import: a tensor missing, misshapen, additional or not finite is named") {
    Fixture fixture;
    const std::string down = "model.layers.1.mlp.down_proj.weight";
    auto changed = fixture.tensors;
    std::erase_if(changed, [&](const SafetensorsTensor& one) { return one.name == down; });
    CHECK(fixture.refusal_with(changed).find(down + " is missing, expected (32, 40)") != std::string::npos);
    changed = fixture.tensors;
    fixture.tensor(changed, down).value = at::zeros({40, 32});
    CHECK(fixture.refusal_with(changed).find(down + ": got (40, 32), expected (32, 40)") != std::string::npos);
    changed = fixture.tensors;
    changed.push_back({"model.layers.2.mlp.down_proj.weight", at::zeros({32, 40})});
    CHECK(fixture.refusal_with(changed).find("model.layers.2.mlp.down_proj.weight' is not expected") != std::string::npos);
    changed = fixture.tensors;
    at::Tensor& value = fixture.tensor(changed, down).value;
    value = value.clone();
    value.mutable_data_ptr<float>()[3] = INFINITY;
    CHECK(fixture.refusal_with(changed).find("not finite") != std::string::npos);
  }

  TEST_CASE("hf_import: a tied head may be stored twice, but only equal") {
    Fixture fixture;
    auto changed = fixture.tensors;
    const at::Tensor embedding = fixture.tensor(changed, "model.embed_tokens.weight").value;
    changed.push_back({"lm_head.weight", embedding.clone()});
    CHECK(fixture.refusal_with(changed) == "accepted");
    changed.back().value.mutable_data_ptr<float>()[0] += 1.0F;
    CHECK(fixture.refusal_with(changed).find("differs from model.embed_tokens.weight") != std::string::npos);
  }

  TEST_CASE("hf_import: an index names leaf files only, each tensor exactly once, and its sum is right") {
    Fixture fixture;
    fs::copy(fixture.folder / "model.safetensors", fixture.scratch.path() / "outside.safetensors");
    Json index = {{"metadata", Json::object()}, {"weight_map", Json::object()}};
    for (const SafetensorsTensor& tensor : fixture.tensors) index["weight_map"][tensor.name] = "model.safetensors";
    const auto refusal_with_index = [&](const Json& changed) {
      spill(fixture.folder / "model.safetensors.index.json", changed.dump());
      return refusal_of(fixture.folder);
    };
    CHECK(refusal_with_index(index) == "accepted");
    for (const char* name : {"../outside.safetensors", "/etc/passwd", "..", "sub/model.safetensors", "", "\n"}) {
      Json changed = index;
      changed["weight_map"]["model.norm.weight"] = name;
      CHECK(refusal_with_index(changed).find("the name '") != std::string::npos);
    }
    Json changed = index;
    changed["weight_map"]["model.norm.weight"] = 3;
    CHECK(refusal_with_index(changed).find("maps to no name") != std::string::npos);
    changed = index;
    changed["weight_map"].erase("model.norm.weight");
    CHECK(refusal_with_index(changed).find("not what the index says") != std::string::npos);
    changed = index;
    changed["weight_map"]["model.extra.weight"] = "model.safetensors";
    CHECK(refusal_with_index(changed).find("'model.extra.weight' is not in") != std::string::npos);
    changed = index;
    changed["metadata"]["total_size"] = 12;
    CHECK(refusal_with_index(changed).find("total_size 12") != std::string::npos);
    changed = index;
    changed["weight_map"]["model.norm.weight"] = "absent.safetensors";
    CHECK(refusal_with_index(changed).find("absent.safetensors") != std::string::npos);
  }

  TEST_CASE("hf_import: padded rows of a vocabulary table are known by their number") {
    CHECK(padded_rows(384, 384) == 0);
    CHECK(padded_rows(151936, 151643) == 293);
    CHECK(padded_rows(152064, 151936) == 128);
    CHECK(padded_rows(320, 300) == 20);
    CHECK_FALSE(padded_rows(310, 300).has_value());   // no multiple of 64
    CHECK_FALSE(padded_rows(2048, 384).has_value());  // too many
    CHECK_FALSE(padded_rows(384, 385).has_value());   // ids without a row

    const Model whole = tiny_model(tiny_config(true), 9);
    const int64_t rows = whole.config.vocab_size;
    const Model cut = without_padded_rows(whole, rows - 3);
    CHECK(cut.config.vocab_size == rows - 3);
    for (const Parameter& parameter : parameter_table(cut.config)) {
      const at::Tensor kept = cut.arena->parameter(parameter.name), all = whole.arena->parameter(parameter.name);
      CHECK(at::equal(kept, all.narrow(0, 0, kept.size(0))));
    }
  }

  TEST_CASE("hf_import: rubbish in place of each file") {
    Fixture fixture;
    for (const char* file : {"config.json", "model.safetensors"}) {
      const std::string whole = slurp(fixture.folder / file);
      for (const std::string& rubbish : {std::string(), std::string("{"), std::string("[]"), std::string(64, '\0'), whole.substr(0, whole.size() / 2)}) {
        spill(fixture.folder / file, rubbish);
        CHECK(refusal_of(fixture.folder) != "accepted");
      }
      fs::remove(fixture.folder / file);
      CHECK(refusal_of(fixture.folder) != "accepted");
      spill(fixture.folder / file, whole);
    }
    CHECK(refusal_of(fixture.folder) == "accepted");
  }
}
