// Export to a Hugging Face folder and back: every shape of model, padding, several files, bf16, and a kill at every
// system call.
#include "src/checkpoint/hf_export.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/base/json.h"
#include "src/checkpoint/hf_import.h"
#include "src/checkpoint/safetensors.h"
#include "src/tensors/shape.h"
#include "tests/checkpoint/tiny.h"
#include "tests/tensors/whole_arena.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

bool same_parameters(const Model& a, const Model& b) {
  return a.config == b.config && at::equal(whole_master(*a.arena), whole_master(*b.arena));
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("hf_export: config.json carries the keys of both transformers generations") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    export_hf(scratch.path / "hf", tiny_model(tiny_config(), 1), tokenizer, "bf16");
    const Json expected = Json::parse(
        R"({"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","vocab_size":512,"hidden_size":32,"intermediate_size":40,
      "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"hidden_act":"silu",
      "max_position_embeddings":128,"initializer_range":0.02,"rms_norm_eps":1e-05,"use_cache":true,"tie_word_embeddings":true,
      "attention_bias":false,"attention_dropout":0.0,"use_sliding_window":false,"sliding_window":null,"max_window_layers":2,
      "rope_theta":500000.0,"rope_scaling":null,"rope_parameters":{"rope_type":"default","rope_theta":500000.0},
      "bos_token_id":1,"eos_token_id":2,"pad_token_id":3,"torch_dtype":"bfloat16","dtype":"bfloat16"})");
    CHECK(read_json(scratch.path / "hf/config.json") == expected);
    CHECK(read_json(scratch.path / "hf/generation_config.json") ==
          Json::parse(R"({"bos_token_id":1,"eos_token_id":2,"pad_token_id":3})"));
    CHECK(
        read_json(scratch.path / "hf/tokenizer_config.json") ==
        Json::parse(
            R"({"tokenizer_class":"PreTrainedTokenizerFast","bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>","pad_token":"<pad>",
            "add_bos_token":false,"clean_up_tokenization_spaces":false,"split_special_tokens":true,"model_max_length":128})"));
    CHECK(slurp(scratch.path / "hf/tokenizer.model") == tokenizer.model_bytes());
    CHECK(names_in(scratch.path / "hf") == std::set<std::string>{"config.json", "generation_config.json",
                                                                 "model.safetensors", "tokenizer.json",
                                                                 "tokenizer.model", "tokenizer_config.json"});
  }

  TEST_CASE("hf_export: without QK-norm it is a Llama") {
    const ScratchFolder scratch;
    export_hf(scratch.path / "hf", tiny_model(tiny_config(false), 1), tiny_tokenizer(scratch.path), "f32");
    const Json config = read_json(scratch.path / "hf/config.json");
    CHECK(config["architectures"][0] == "LlamaForCausalLM");
    CHECK(config["model_type"] == "llama");
    CHECK(config["mlp_bias"] == false);
    CHECK_FALSE(config.contains("use_sliding_window"));
    for (const SafetensorsEntry& entry : read_safetensors_header(scratch.path / "hf/model.safetensors"))
      CHECK(entry.name.find("q_norm") == std::string::npos);
  }

  TEST_CASE(
      "hf_export: with biases of q, k and v it is a Qwen2; a scaled RoPE stands in the keys of both generations") {
    const ScratchFolder scratch;
    ModelConfig model_config = tiny_config(false);
    model_config.qkv_bias = true;
    model_config.rope_scaling = RopeScaling{.original_max_position_embeddings = 64};
    const Model model = tiny_model(model_config, 1);
    export_hf(scratch.path / "hf", model, tiny_tokenizer(scratch.path), "f32");
    const Json config = read_json(scratch.path / "hf/config.json");
    CHECK(config["architectures"][0] == "Qwen2ForCausalLM");
    CHECK(config["model_type"] == "qwen2");
    CHECK(config["use_sliding_window"] == false);
    CHECK_FALSE(config.contains("attention_bias"));
    CHECK_FALSE(config.contains("mlp_bias"));
    CHECK(
        config["rope_scaling"] ==
        Json::parse(
            R"({"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":64})"));
    Json with_theta = config["rope_scaling"];
    with_theta["rope_theta"] = 500000.0;
    CHECK(config["rope_parameters"] == with_theta);
    CHECK(same_parameters(import_hf(scratch.path / "hf"), model));
    CHECK(import_hf_config(scratch.path / "hf").config == model_config);

    model_config.qk_norm = true;
    CHECK_THROWS_WITH_AS(
        export_hf(scratch.path / "hf", tiny_model(model_config, 1), tiny_tokenizer(scratch.path), "f32"),
        doctest::Contains("biases of q, k and v beside QK-norm"), UserError);
  }

  TEST_CASE("hf_export: what refuses before anything is written") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    Model model = tiny_model(tiny_config(), 1);
    CHECK_THROWS_AS(export_hf(scratch.path / "hf", model, tokenizer, "f16"), UserError);
    ModelConfig small = tiny_config();
    small.vocab_size = 511;
    CHECK_THROWS_WITH_AS(export_hf(scratch.path / "hf", tiny_model(small, 1), tokenizer, "f32"),
                         doctest::Contains("512 pieces"), UserError);
    model.arena->edit_master()["embed_tokens.weight"].mutable_data_ptr<float>()[100] = NAN;
    CHECK_THROWS_WITH_AS(export_hf(scratch.path / "hf", model, tokenizer, "f32"), doctest::Contains("not finite"),
                         UserError);
    CHECK(names_in(scratch.path) == std::set<std::string>{"tokenizer.model"});  // the temporary folder is gone, too
  }
}

TEST_SUITE("parity") {
  TEST_CASE("hf_export: re-imported parameters are ours, bit for bit, for every shape of model") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    for (const bool qk_norm : {true, false}) {
      for (const bool tied : {true, false}) {
        for (const std::vector<int64_t>& widths : {std::vector<int64_t>{40, 40}, {40, 7, 24}}) {
          ModelConfig config = tiny_config(qk_norm, widths);
          config.tie_word_embeddings = tied;
          const Model model = tiny_model(config, 5);
          const HfExportReport report = export_hf(scratch.path / "hf", model, tokenizer, "f32");
          CHECK(report.max_logit_difference <= 1e-5);
          CHECK(report.bytes > static_cast<uint64_t>(count_parameters(config)) * 4);
          CHECK(same_parameters(import_hf(scratch.path / "hf"), model));
        }
      }
    }
  }

  TEST_CASE("hf_export: bf16 files hold the rounded weights") {
    const ScratchFolder scratch;
    const Model model = tiny_model(tiny_config(), 5);
    export_hf(scratch.path / "hf", model, tiny_tokenizer(scratch.path), "bf16");
    const Model back = import_hf(scratch.path / "hf");
    CHECK(at::equal(whole_master(*back.arena), whole_master(*model.arena).to(at::kBFloat16).to(at::kFloat)));
    CHECK_FALSE(at::equal(whole_master(*back.arena), whole_master(*model.arena)));
  }

  TEST_CASE("hf_export: padding is zero rows and columns, and the true widths are listed") {
    const ScratchFolder scratch;
    export_hf(scratch.path / "hf", tiny_model(tiny_config(true, {40, 8}), 5), tiny_tokenizer(scratch.path), "f32");
    CHECK(read_json(scratch.path / "hf/config.json")["coppice_intermediate_sizes"] == Json::parse("[40,8]"));
    CHECK(read_json(scratch.path / "hf/config.json")["intermediate_size"] == 40);
    const fs::path weights = scratch.path / "hf/model.safetensors";
    for (const SafetensorsEntry& entry : read_safetensors_header(weights)) {
      if (entry.name.find("layers.1.mlp") == std::string::npos) continue;
      const at::Tensor value = read_safetensors_tensor(weights, entry);
      const int64_t axis = entry.name.find("down_proj") == std::string::npos ? 0 : 1;
      CHECK(value.size(axis) == 40);
      CHECK(value.narrow(axis, 8, 32).abs().sum().item<float>() == 0.0F);
      CHECK(value.narrow(axis, 0, 8).abs().min().item<float>() > 0.0F);
    }
  }

  TEST_CASE("hf_export: above the limit the weights are split, with an index that adds up") {
    const ScratchFolder scratch;
    const Model model = tiny_model(tiny_config(), 5);
    export_hf(scratch.path / "hf", model, tiny_tokenizer(scratch.path), "f32", {.shard_bytes = 20'000});
    const Json index = read_json(scratch.path / "hf/model.safetensors.index.json");
    CHECK(index["metadata"]["total_size"] == count_parameters(model.config) * 4);
    const std::string last = index["weight_map"]["model.norm.weight"];
    const size_t count = std::stoul(last.substr(15, 5));
    CHECK(count >= 3);
    CHECK(last == fmt::format("model-{0:05}-of-{0:05}.safetensors", count));
    CHECK_FALSE(fs::exists(scratch.path / "hf/model.safetensors"));
    CHECK(same_parameters(import_hf(scratch.path / "hf"), model));
  }
}

TEST_SUITE("faults") {
  TEST_CASE("hf_export: other logits after reading back, and nothing is put in place; the older export stays") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Model older = tiny_model(tiny_config(), 1), model = tiny_model(tiny_config(), 2);
    for (const bool exists : {false, true}) {
      if (exists) export_hf(scratch.path / "hf", older, tokenizer, "f32");
      set_failpoints("export.logits=nan");
      CHECK_THROWS_WITH_AS(export_hf(scratch.path / "hf", model, tokenizer, "f32"), doctest::Contains("other logits"),
                           InternalError);
      set_failpoints("");
      CHECK(fs::exists(scratch.path / "hf") == exists);
    }
    CHECK(same_parameters(import_hf(scratch.path / "hf"), older));
    CHECK(names_in(scratch.path) == std::set<std::string>{"hf", "tokenizer.model"});
  }

  TEST_CASE("hf_export: a full disk ends with exit 4, nothing is put in place, the older export stays") {
    start_torch(1);  // a forked child has no worker threads
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Model older = tiny_model(tiny_config(), 1), model = tiny_model(tiny_config(), 2);
    export_hf(scratch.path / "hf", older, tokenizer, "f32");
    for (const rlim_t limit : {rlim_t{10}, rlim_t{600}, rlim_t{30'000}}) {
      const int code = run_in_child([&] {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit rule{limit, limit};
        ::setrlimit(RLIMIT_FSIZE, &rule);
        export_hf(scratch.path / "hf", model, tokenizer, "f32");
      });
      CHECK(code == static_cast<int>(ExitCode::io));
      CHECK(same_parameters(import_hf(scratch.path / "hf"), older));
      CHECK(names_in(scratch.path) == std::set<std::string>{"hf", "tokenizer.model"});
    }
    start_torch(2);
  }

  TEST_CASE("hf_export: killed after each system call, the folder is whole or absent, and a second try works") {
    start_torch(1);  // a forked child has no worker threads
    for (const bool redo : {false, true}) {
      const ScratchFolder scratch;
      const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
      const Model older = tiny_model(tiny_config(), 1), model = tiny_model(tiny_config(), 2);
      const fs::path folder = scratch.path / "out" / "hf";
      int num_kills = 0;
      for (;; ++num_kills) {
        REQUIRE(num_kills < 200);
        fs::remove_all(scratch.path / "out");
        if (redo) export_hf(folder, older, tokenizer, "f32");
        const int code = run_in_child([&] {
          set_failpoints("", static_cast<uint64_t>(num_kills) + 1);
          const SilentStderr silent;
          export_hf(folder, model, tokenizer, "f32");
        });
        CAPTURE(num_kills);
        CHECK((code == 0 || code == 128 + SIGKILL));
        if (fs::exists(folder)) {
          const Model found = import_hf(folder);
          CHECK((same_parameters(found, model) || (redo && same_parameters(found, older))));
          CHECK(names_in(folder).size() == 6);
        } else {
          CHECK_FALSE(redo);
        }
        if (code == 0) break;
        if (num_kills % 8 == 0) {
          if (fs::exists(scratch.path / "out")) remove_temporaries(scratch.path / "out");
          export_hf(folder, model, tokenizer, "f32");
          CHECK(same_parameters(import_hf(folder), model));
          CHECK(names_in(scratch.path / "out") == std::set<std::string>{"hf"});
        }
      }
      CHECK(num_kills >= 25);
    }
    start_torch(2);
  }
}
