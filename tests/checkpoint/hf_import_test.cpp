// Reading foreign Hugging Face folders: what is not supported is named, every tensor is accounted for, nothing outside
// the folder is touched.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/checkpoint/hf_export.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/safetensors.h"
#include "tests/checkpoint/tiny.h"

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
  fs::path folder = scratch.path / "hf";
  Json config;
  std::vector<SafetensorsTensor> tensors;

  explicit Fixture(bool qk_norm = true) {
    export_hf(folder, tiny_model(tiny_config(qk_norm), 9), tiny_tokenizer(scratch.path), "f32");
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
        {R"({"architectures":null,"model_type":"gpt2"})",
         "model_type \"gpt2\" is not supported: LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, "
         "Qwen3ForCausalLM "
         "are read"},
        {R"({"architectures":null,"model_type":null})", "neither architectures nor model_type"},
        {R"({"architectures":["Qwen2ForCausalLM"]})", "Qwen2ForCausalLM"},
        {R"({"architectures":["LlamaForCausalLM"],"model_type":"mistral"})", "does not fit"},
        {R"({"architectures":["LlamaForCausalLM","LlamaForCausalLM"]})", "architecture"},
        {R"({"rope_scaling":{"rope_type":"llama3","factor":8.0}})", "low_freq_factor"},
        {R"({"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0}})",
         "rope_scaling and rope_parameters contradict each other"},
        {R"({"rope_scaling":{"type":"dynamic","factor":1.0}})", "dynamic"},
        {R"({"rope_scaling":{"type":"linear"}})", "linear"},
        {R"({"rope_scaling":{"type":"linear","factor":"1"}})", "linear"},
        {R"({"rope_scaling":{"factor":4.0}})", "factor 4.0 without a type"},
        {R"({"rope_scaling":{"rope_type":"default","type":"yarn"}})", "yarn"},
        {R"({"rope_scaling":[1]})", "rope_scaling: an object expected"},
        {R"({"rope_parameters":{"full_attention":{"rope_theta":1000.0}}})", "'full_attention'"},
        {R"({"rope_parameters":{"rope_type":"default","partial_rotary_factor":0.25}})", "partial_rotary_factor"},
        {R"({"quantization_config":{}})",
         "quantization_config is not supported: give the folder of the weights before quantization"},
        {R"({"num_key_value_heads":null})", "k_proj"},
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
    CHECK(fixture.refusal_with(fixture.with(
              R"({"sliding_window":4096,"some_new_key":[1,2],"layer_types":["full_attention","full_attention"]})")) ==
          "accepted");
  }

  TEST_CASE("hf_import: defaults of absent keys") {
    Fixture fixture(false);
    Json config = fixture.config;
    for (const char* key : {"rope_parameters", "rope_theta", "rms_norm_eps", "head_dim", "max_position_embeddings"})
      config.erase(key);
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

namespace {

/// A folder as somebody may have left it, made from a plain one.
struct Odd {
  Json config = nullptr, index = nullptr;  // index null: one file without
  std::vector<SafetensorsTensor> tensors = {};
  std::vector<std::pair<std::string, std::string>> files = {};  // beside those

  void write(const fs::path& folder) const {
    fs::create_directories(folder);
    spill(folder / "config.json", config.dump());
    write_safetensors(folder / "model.safetensors", tensors);
    if (!index.is_null()) {
      Json whole = index;
      for (const SafetensorsTensor& tensor : tensors) whole["weight_map"][tensor.name] = "model.safetensors";
      spill(folder / "model.safetensors.index.json", whole.dump());
    }
    for (const auto& [name, bytes] : files) spill(folder / name, bytes);
  }
};

at::Tensor logits_of(const Model& model) {
  const c10::NoGradGuard no_grad;
  const at::Tensor token_BT = (at::arange(24, at::kLong) * 37 % 500).view({1, 24});
  return decoder_logits(
      model, {.token_BT = token_BT, .position_BT = at::arange(24, at::kLong).view({1, 24}), .document_BT = {}});
}

/// theta^(-2i / head_dim) as old programs store it; head_dim is 8 here.
std::vector<SafetensorsTensor> frequencies(double theta, at::ScalarType type,
                                           const std::string& prefix = "model.layers.") {
  std::vector<SafetensorsTensor> tensors;
  for (int layer = 0; layer < 2; ++layer)
    tensors.push_back({fmt::format("{}{}.self_attn.rotary_emb.inv_freq", prefix, layer),
                       at::pow(theta, at::arange(0, 8, 2) / -8.0).to(type).contiguous()});
  return tensors;
}

void add(Odd& odd, const std::vector<SafetensorsTensor>& tensors) {
  odd.tensors.insert(odd.tensors.end(), tensors.begin(), tensors.end());
}

void use_mistral(Odd& odd, const char* patch) {
  odd.config.update(Json::parse(R"({"architectures":["MistralForCausalLM"],"model_type":"mistral"})"));
  odd.config.update(Json::parse(patch));
}

/// More rows than the 512 ids, of numbers that no softmax survives.
void add_rows(Odd& odd, int64_t rows) {
  odd.config["vocab_size"] = 512 + rows;
  for (SafetensorsTensor& tensor : odd.tensors)
    if (tensor.value.size(0) == 512)
      tensor.value = at::cat({tensor.value, at::full({rows, tensor.value.size(1)}, 10.0)}).contiguous();
}

struct OddRow {
  const char* name;
  bool qk_norm;  // Qwen3, otherwise Llama
  std::function<void(Odd&)> change;
};

const std::vector<OddRow>& plain_rows() {
  const auto patch = [](const char* text) { return [text](Odd& odd) { odd.config.update(Json::parse(text)); }; };
  const auto erase = [](std::vector<const char*> keys) {
    return [keys](Odd& odd) {
      for (const char* key : keys) odd.config.erase(key);
    };
  };
  const auto total = [](Json value) {
    return [value](Odd& odd) { odd.index = {{"metadata", {{"total_size", value}}}}; };
  };
  static const std::vector<OddRow> rows = {
      {"frequencies in float32", false, [](Odd& odd) { add(odd, frequencies(500000.0, at::kFloat)); }},
      {"frequencies in float16", false, [](Odd& odd) { add(odd, frequencies(500000.0, at::kHalf)); }},
      {"frequencies in bfloat16", true, [](Odd& odd) { add(odd, frequencies(500000.0, at::kBFloat16)); }},
      {"frequencies once for all layers", false,
       [](Odd& odd) {
         add(odd, {{"model.rotary_emb.inv_freq", frequencies(500000.0, at::kFloat)[0].value}});
       }},
      {"frequencies that the index does not know", false,
       [](Odd& odd) {
         odd.index = {{"metadata", Json::object()}};
         add(odd, frequencies(500000.0, at::kFloat));
       }},
      {"total_size: number of tensors", false, total(21)},
      {"total_size: a float", false, total(123456.0)},
      {"total_size: null", false, total(nullptr)},
      {"total_size: negative", false, total(-1)},
      {"no metadata", false, [](Odd& odd) { odd.index = Json::object(); }},
      {"pretraining_tp 2", false, patch(R"({"pretraining_tp":2})")},
      {"rope_scaling: linear by 1", false, patch(R"({"rope_scaling":{"type":"linear","factor":1.0}})")},
      {"rope_scaling: linear by integer 1", true, patch(R"({"rope_scaling":{"rope_type":"linear","factor":1}})")},
      {"rope_scaling: default", false, patch(R"({"rope_scaling":{"rope_type":"default"}})")},
      {"rope_scaling: llama3 by 1", false,
       patch(
           R"({"rope_scaling":{"rope_type":"llama3","factor":1.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}})")},
      {"yarn by 1", false,
       patch(R"({"rope_scaling":{"rope_type":"yarn","factor":1.0,"original_max_position_embeddings":64}})")},
      {"rope_parameters: linear by 1", true,
       patch(R"({"rope_parameters":{"rope_type":"linear","factor":1.0,"rope_theta":500000.0}})")},
      {"rope_parameters without a type", true, patch(R"({"rope_parameters":{"rope_theta":500000.0}})")},
      {"rope_parameters alone", false, erase({"rope_theta", "rope_scaling"})},
      {"rope_theta alone", false, erase({"rope_parameters", "rope_scaling"})},
      {"Mistral without a window", false, [](Odd& odd) { use_mistral(odd, R"({"sliding_window":null})"); }},
      {"Mistral with a window of all positions", false,
       [](Odd& odd) { use_mistral(odd, R"({"sliding_window":128})"); }},
      {"Mistral with a window", false,
       [](Odd& odd) { use_mistral(odd, R"({"sliding_window":32,"use_sliding_window":false})"); }},
      {"one more row", false, [](Odd& odd) { add_rows(odd, 1); }},
      {"one more row, tied", true, [](Odd& odd) { add_rows(odd, 1); }},
      {"64 more rows", false, [](Odd& odd) { add_rows(odd, 64); }},
      {"2000 more rows", false, [](Odd& odd) { add_rows(odd, 2000); }},
      {"no architectures", false, erase({"architectures"})},
      {"no architectures, Qwen3", true, erase({"architectures"})},
      {"no model_type", true, erase({"model_type"})},
      {"an old spelling", false, patch(R"({"architectures":["LLaMAForCausalLM"]})")},
      {"architectures null", false, patch(R"({"architectures":null})")},
      {"a base model", true,
       [](Odd& odd) {
         odd.config["architectures"] = {"Qwen3Model"};
         for (SafetensorsTensor& tensor : odd.tensors) tensor.name.erase(0, std::string("model.").size());
       }},
      {"a base model with frequencies", false,
       [](Odd& odd) {
         for (SafetensorsTensor& tensor : odd.tensors)
           if (tensor.name.starts_with("model.")) tensor.name.erase(0, std::string("model.").size());
         add(odd, frequencies(500000.0, at::kFloat, "layers."));
       }},
      {"swish", false, patch(R"({"hidden_act":"swish"})")},
      {"no hidden_act, biases, dropout, cache", false,
       erase({"hidden_act", "attention_bias", "mlp_bias", "attention_dropout", "use_cache", "initializer_range"})},
      {"dropout, dtype, cache and names", true,
       patch(
           R"({"attention_dropout":0.1,"torch_dtype":"bfloat16","use_cache":false,"_name_or_path":"/home/x","transformers_version":"4.31.0","auto_map":{}})")},
      {"Qwen3 with a window that is off", true,
       patch(R"({"use_sliding_window":false,"sliding_window":16,"max_window_layers":1})")},
      {"Qwen3 with a switch and no window", true, patch(R"({"use_sliding_window":true,"sliding_window":null})")},
      {"layers of full attention", true, patch(R"({"layer_types":["full_attention","full_attention"]})")},
      {"no quantization", false, patch(R"({"quantization_config":null})")},
      {"a tied head that is stored", true,
       [](Odd& odd) {
         add(odd, {{"lm_head.weight", odd.tensors[0].value.clone()}});
       }},
      {"other files beside", false,
       [](Odd& odd) {
         odd.files = {
             {"README.md", "# x"}, {"pytorch_model.bin.index.json", "{"}, {"training_args.bin", std::string(3, '\0')}};
       }},
  };
  return rows;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hf_import: what is mathematically plain gives the plain folder's logits") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    for (const bool qk_norm : {false, true}) {
      ModelConfig config = tiny_config(qk_norm);
      config.tie_word_embeddings = qk_norm;  // both kinds of head
      const fs::path plain = scratch.path / (qk_norm ? "qwen3" : "llama");
      export_hf(plain, tiny_model(config, 9), tokenizer, "f32");
      Odd start{.config = read_json(plain / "config.json")};
      for (const SafetensorsEntry& entry : read_safetensors_header(plain / "model.safetensors"))
        start.tensors.push_back({entry.name, read_safetensors_tensor(plain / "model.safetensors", entry)});
      REQUIRE(start.tensors[0].name == (qk_norm ? "model.embed_tokens.weight" : "lm_head.weight"));
      const at::Tensor expected = logits_of(import_hf(plain));
      for (const OddRow& row : plain_rows()) {
        if (row.qk_norm != qk_norm) continue;
        CAPTURE(row.name);
        Odd odd = start;
        row.change(odd);
        const fs::path folder = scratch.path / "odd";
        fs::remove_all(folder);
        odd.write(folder);
        std::string refused;
        try {
          CHECK(at::equal(logits_of(import_hf(folder, 512)), expected));
        } catch (const Error& error) {
          refused = error.what();
        }
        CHECK(refused == "");
      }
    }
  }

  TEST_CASE("hf_import: tensors of several types in one folder are read each as it is") {
    Fixture fixture(false);
    auto mixed = fixture.tensors, rounded = fixture.tensors;
    for (size_t i = 0; i < mixed.size(); ++i) {
      const at::ScalarType type = i % 3 == 0 ? at::kFloat : i % 3 == 1 ? at::kHalf : at::kBFloat16;
      mixed[i].value = mixed[i].value.to(type);
      rounded[i].value = mixed[i].value.to(at::kFloat);
    }
    write_safetensors(fixture.folder / "model.safetensors", rounded);
    const at::Tensor expected = logits_of(import_hf(fixture.folder));
    write_safetensors(fixture.folder / "model.safetensors", mixed);
    CHECK(at::equal(logits_of(import_hf(fixture.folder)), expected));
  }

  TEST_CASE("hf_import: a sliding window ends the positions of the model that is imported") {
    Fixture fixture(false);
    const auto shape_with = [&](const char* patch) {
      Json changed = fixture.with(
          R"({"architectures":["MistralForCausalLM"],"model_type":"mistral","max_position_embeddings":32768})");
      changed.update(Json::parse(patch));
      if (changed.contains("drop")) changed.erase("sliding_window"), changed.erase("drop");
      spill(fixture.folder / "config.json", changed.dump());
      return import_hf_config(fixture.folder);
    };
    const auto positions = [&](const char* patch) { return shape_with(patch).config.max_position_embeddings; };
    CHECK(positions(R"({"sliding_window":null})") == 32768);
    CHECK(shape_with(R"({"sliding_window":null})").attention_window == 0);
    CHECK(positions(R"({"drop":1})") == 4096);  // absent means 4096
    CHECK(shape_with(R"({"drop":1})").attention_window == 4096);
    CHECK(positions(R"({"sliding_window":8192})") == 8192);
    CHECK(positions(R"({"sliding_window":65536})") == 32768);
    CHECK(shape_with(R"({"sliding_window":65536})").attention_window == 0);
  }

  TEST_CASE("hf_import: absent sizes are those of the family, null ones are derived") {
    Fixture fixture(false);
    const auto config_of = [&](const char* family, const char* type, std::vector<const char*> absent,
                               const char* patch) {
      Json changed = fixture.config;
      changed.update(
          Json({{"architectures", {family}}, {"model_type", type}, {"num_attention_heads", 32}, {"hidden_size", 256}}));
      changed.update(Json::parse(patch));
      for (const char* key : absent) changed.erase(key);
      spill(fixture.folder / "config.json", changed.dump());
      return import_hf_config(fixture.folder).config;
    };
    CHECK(config_of("LlamaForCausalLM", "llama", {"num_key_value_heads"}, "{}").num_key_value_heads == 32);
    CHECK(config_of("MistralForCausalLM", "mistral", {"num_key_value_heads"}, "{}").num_key_value_heads == 8);
    CHECK(config_of("MistralForCausalLM", "mistral", {}, R"({"num_key_value_heads":null})").num_key_value_heads == 32);
    CHECK(config_of("Qwen3ForCausalLM", "qwen3", {"num_key_value_heads"}, R"({"num_attention_heads":64})")
              .num_key_value_heads == 32);
    CHECK(config_of("MistralForCausalLM", "mistral", {"head_dim"}, "{}").head_dim == 8);
    CHECK(config_of("Qwen3ForCausalLM", "qwen3", {"head_dim"}, "{}").head_dim == 128);
    CHECK(config_of("LlamaForCausalLM", "llama", {}, R"({"head_dim":null})").head_dim == 8);
    CHECK(config_of("MistralForCausalLM", "mistral", {"max_position_embeddings"}, R"({"sliding_window":null})")
              .max_position_embeddings == 131072);
  }
}

namespace {

/// The Llama 3.1 scaling of the tests, of 64 tokens by 8.
constexpr const char* kLlama3 =
    R"("rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64)";

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hf_import: Llama 3.1's scaling, in the keys of either generation") {
    Fixture fixture(false);
    const auto config_with = [&](const std::string& patch, std::vector<const char*> absent) {
      Json changed = fixture.with(patch);
      for (const char* key : absent) changed.erase(key);
      spill(fixture.folder / "config.json", changed.dump());
      return import_hf(fixture.folder).config;
    };
    const std::string scaling = fmt::format(R"({{{}}})", kLlama3),
                      old_type = R"({"rope_scaling":{"type":)" + scaling.substr(13) + "}";
    const RopeScaling expected{
        .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_position_embeddings = 64};
    const std::string in_parameters = fmt::format(R"({{"rope_parameters":{{"rope_theta":500000.0,{}}}}})", kLlama3);
    CHECK(config_with(R"({"rope_scaling":)" + scaling + "}", {"rope_parameters"}).rope_scaling == expected);
    CHECK(config_with(old_type, {"rope_parameters"}).rope_scaling == expected);
    CHECK(config_with(in_parameters, {"rope_theta"}).rope_scaling == expected);
    CHECK(config_with(in_parameters, {"rope_theta"}).rope_theta == 500000.0);
    CHECK_FALSE(config_with("{}", {}).rope_scaling.has_value());
    // The length of the first training may stand beside, or be that of the model.
    const std::string shorter =
        R"({"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0})";
    CHECK(config_with(shorter + "}", {"rope_parameters"}).rope_scaling->original_max_position_embeddings == 128);
    CHECK(config_with(shorter + R"(,"original_max_position_embeddings":32})", {"rope_parameters"})
              .rope_scaling->original_max_position_embeddings == 32);
  }

  TEST_CASE("hf_import: biases of q, k and v; one of o_proj must be zero") {
    const ScratchFolder scratch;
    ModelConfig config = tiny_config(false);
    config.qkv_bias = true;
    const fs::path folder = scratch.path / "qwen2";
    export_hf(folder, tiny_model(config, 9), tiny_tokenizer(scratch.path), "f32");
    const at::Tensor expected = logits_of(import_hf(folder));
    const Json qwen2 = read_json(folder / "config.json");
    std::vector<SafetensorsTensor> tensors;
    for (const SafetensorsEntry& entry : read_safetensors_header(folder / "model.safetensors"))
      tensors.push_back({entry.name, read_safetensors_tensor(folder / "model.safetensors", entry)});
    const std::string bias = "model.layers.1.self_attn.o_proj.bias";
    const auto answer = [&](const Json& config, const std::vector<SafetensorsTensor>& more) {
      auto changed = tensors;
      changed.insert(changed.end(), more.begin(), more.end());
      write_safetensors(folder / "model.safetensors", changed);
      spill(folder / "config.json", config.dump());
      const std::string text = refusal_of(folder);
      if (text == "accepted") CHECK(at::equal(logits_of(import_hf(folder)), expected));
      return text;
    };
    Json llama = qwen2;
    llama.update(Json::parse(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","attention_bias":true})"));
    CHECK(answer(qwen2, {}) == "accepted");
    CHECK(answer(llama, {}) == "accepted");
    CHECK(answer(llama, {{bias, at::zeros({32})}}) == "accepted");
    const at::Tensor one = at::zeros({32});
    one.mutable_data_ptr<float>()[31] = 1e-3F;
    CHECK(answer(llama, {{bias, one}}).find("tensor '" + bias + "' is not (32) zeros") != std::string::npos);
    CHECK(answer(llama, {{bias, at::zeros({33})}}).find("is not (32) zeros") != std::string::npos);
    llama["attention_bias"] = false;
    CHECK(answer(llama, {}).find("layers.0.self_attn.k_proj.bias' is not expected") != std::string::npos);
    Json window = qwen2;
    window.update(Json::parse(R"({"use_sliding_window":true,"sliding_window":64})"));
    CHECK(answer(window, {}).find("use_sliding_window") != std::string::npos);
    window["use_sliding_window"] = false;
    CHECK(answer(window, {}) == "accepted");
    window.erase("use_sliding_window");  // off where it is absent
    CHECK(answer(window, {}) == "accepted");
  }
}

TEST_SUITE("faults") {
  TEST_CASE("hf_import: stored frequencies must be those of rope_theta") {
    Fixture fixture(false);
    const auto refusal = [&](const std::vector<SafetensorsTensor>& more) {
      auto changed = fixture.tensors;
      changed.insert(changed.end(), more.begin(), more.end());
      return fixture.refusal_with(changed);
    };
    CHECK(refusal(frequencies(500000.0, at::kFloat)) == "accepted");
    CHECK(refusal(frequencies(10000.0, at::kFloat)).find("model.layers.0.self_attn.rotary_emb.inv_freq") !=
          std::string::npos);
    CHECK(refusal(frequencies(500100.0, at::kFloat)).find("other frequencies than rope_theta = 500000") !=
          std::string::npos);
    CHECK(refusal(frequencies(10000.0, at::kBFloat16)).find("other frequencies") != std::string::npos);
    for (const at::Tensor& value : {at::ones({4}), at::ones({8}), at::ones({2, 2}), at::full({4}, NAN), at::ones({0})})
      CHECK(refusal({{"model.rotary_emb.inv_freq", value}}).find("other frequencies") != std::string::npos);
    fixture.config.erase("rope_parameters");
    fixture.config["rope_scaling"] = Json::parse(fmt::format("{{{}}}", kLlama3));
    spill(fixture.folder / "config.json", fixture.config.dump());
    CHECK(refusal(frequencies(500000.0, at::kFloat)).find("rope_theta = 500000 with its scaling") != std::string::npos);
    const at::Tensor scaled = rope_frequencies(import_hf(fixture.folder).config).to(at::kFloat);
    CHECK(refusal({{"model.rotary_emb.inv_freq", scaled}}) == "accepted");
    CHECK(refusal({{"model.layers.0.self_attn.rotary_emb.cos_cached", at::ones({4})}}).find("is not expected") !=
          std::string::npos);
  }

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
    CHECK(fixture.refusal_with(changed).find("model.layers.2.mlp.down_proj.weight' is not expected") !=
          std::string::npos);
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

  TEST_CASE("hf_import: an index names leaf files only, and each tensor exactly once") {
    Fixture fixture;
    fs::copy(fixture.folder / "model.safetensors", fixture.scratch.path / "outside.safetensors");
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
    changed["weight_map"]["model.norm.weight"] = "absent.safetensors";
    CHECK(refusal_with_index(changed).find("absent.safetensors") != std::string::npos);
  }

  TEST_CASE("hf_import: rows of a vocabulary table beyond the ids are cut, however many") {
    CHECK(padded_rows(384, 384) == 0);
    CHECK(padded_rows(151936, 151643) == 293);
    CHECK(padded_rows(152064, 151936) == 128);
    CHECK(padded_rows(320, 300) == 20);
    CHECK(padded_rows(32001, 32000) == 1);
    CHECK(padded_rows(2048, 384) == 1664);
    CHECK_FALSE(padded_rows(384, 385).has_value());  // ids without a row

    const Fixture fixture;
    const Model whole = import_hf(fixture.folder), cut = import_hf(fixture.folder, 509);
    CHECK(whole.config.vocab_size == 512);
    CHECK(cut.config.vocab_size == 509);
    CHECK_THROWS_AS(import_hf(fixture.folder, 513), InternalError);
    for (const Parameter& parameter : parameter_table(cut.config)) {
      const at::Tensor kept = cut.arena->parameter(parameter.name), all = whole.arena->parameter(parameter.name);
      CHECK(at::equal(kept, all.narrow(0, 0, kept.size(0))));
    }
  }

  TEST_CASE("hf_import: rubbish in place of each file") {
    Fixture fixture;
    for (const char* file : {"config.json", "model.safetensors"}) {
      const std::string whole = slurp(fixture.folder / file);
      for (const std::string& rubbish : {std::string(), std::string("{"), std::string("[]"), std::string(64, '\0'),
                                         whole.substr(0, whole.size() / 2)}) {
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
