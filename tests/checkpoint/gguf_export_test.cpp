// Export to a GGUF file and back: every architecture, type and shape, padding, and a kill at every system call.
#include "src/checkpoint/gguf_export.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "src/base/failpoint.h"
#include "src/base/files.h"
#include "src/checkpoint/gguf_file.h"
#include "src/checkpoint/gguf_import.h"
#include "src/checkpoint/quantised_blocks.h"
#include "src/tensors/shape.h"
#include "tests/checkpoint/tiny.h"
#include "tests/tensors/whole_arena.h"

namespace fs = std::filesystem;
using namespace coppice;

namespace {

bool same_parameters(const Model& a, const Model& b) {
  return a.config == b.config && at::equal(whole_master(*a.arena), whole_master(*b.arena));
}

ModelConfig config_of(const std::string& architecture, std::vector<int64_t> widths = {40, 40}) {
  ModelConfig config = tiny_config(architecture == "qwen3", std::move(widths));
  config.qkv_bias = architecture == "qwen2";
  return config;
}

/// What a type makes of values: by the tested functions, one row at a time.
at::Tensor rounded(const at::Tensor& values, GgmlType type) {
  const at::Tensor rows = values.dim() == 1 ? values.unsqueeze(0) : values;
  const GgmlTypeRow& row = ggml_type_row(type);
  const int64_t columns = (rows.size(1) + row.elements - 1) / row.elements * row.elements;
  at::Tensor padded = at::zeros({rows.size(0), columns});
  padded.narrow(1, 0, rows.size(1)).copy_(rows);
  std::vector<std::byte> blocks(static_cast<size_t>(padded.numel()) / row.elements * row.bytes);
  const std::span<float> span(padded.mutable_data_ptr<float>(), static_cast<size_t>(padded.numel()));
  CHECK(quantise(type, span, blocks));
  CHECK(dequantise(type, blocks, span));
  return padded.narrow(1, 0, rows.size(1)).reshape(values.sizes());
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("gguf_export: every key and tensor of a small file") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const HfSettings settings{.config_ids = {{"eos_token_id", {2, 3}}}, .chat_template = "{{ x }}", .add_bos = true};
    const GgufGeneral general{.name = "Small",
                              .basename = "small",
                              .size_label = "1K",
                              .license = "mit",
                              .base_models = {{.name = "Large", .repo_url = "somewhere"}},
                              .datasets = {{.name = "Texts"}}};
    export_gguf(scratch.path / "a.gguf", tiny_model(config_of("qwen3", {40, 24}), 1), tokenizer,
                {.type = "q4_0", .settings = &settings, .general = general, .source_sha256 = "ab", .version = "0.1"});
    const GgufFile file(scratch.path / "a.gguf");
    const std::map<std::string, uint64_t> numbers = {{"general.file_type", 2},
                                                     {"general.quantization_version", 2},
                                                     {"general.alignment", 32},
                                                     {"qwen3.vocab_size", 512},
                                                     {"qwen3.context_length", 128},
                                                     {"qwen3.embedding_length", 32},
                                                     {"qwen3.block_count", 2},
                                                     {"qwen3.feed_forward_length", 64},  // 40 in blocks of 32
                                                     {"qwen3.attention.head_count", 4},
                                                     {"qwen3.attention.head_count_kv", 2},
                                                     {"qwen3.attention.key_length", 8},
                                                     {"qwen3.attention.value_length", 8},
                                                     {"qwen3.rope.dimension_count", 8},
                                                     {"general.base_model.count", 1},
                                                     {"general.dataset.count", 1},
                                                     {"tokenizer.ggml.bos_token_id", 1},
                                                     {"tokenizer.ggml.eos_token_id", 2},
                                                     {"tokenizer.ggml.eot_token_id", 3},
                                                     {"tokenizer.ggml.unknown_token_id", 0},
                                                     {"tokenizer.ggml.padding_token_id", 3}};
    for (const auto& [key, value] : numbers) {
      CAPTURE(key);
      CHECK(file.unsigned_at(key, 1 << 20) == value);
    }
    const std::map<std::string, std::string> texts = {
        {"general.architecture", "qwen3"},   {"general.type", "model"},         {"general.name", "Small"},
        {"general.dataset.0.name", "Texts"}, {"coppice.source_sha256", "ab"},   {"coppice.version", "0.1"},
        {"tokenizer.ggml.model", "llama"},   {"tokenizer.ggml.pre", "default"}, {"tokenizer.chat_template", "{{ x }}"}};
    for (const auto& [key, value] : texts) {
      CAPTURE(key);
      CHECK(file.string_at(key) == value);
    }
    CHECK(file.number_at("qwen3.attention.layer_norm_rms_epsilon") == 1e-5);
    CHECK(file.number_at("qwen3.rope.freq_base") == 500000.0);
    CHECK(file.boolean_at("tokenizer.ggml.add_bos_token") == true);
    CHECK(file.boolean_at("tokenizer.ggml.add_eos_token") == false);
    CHECK(file.boolean_at("tokenizer.ggml.add_space_prefix") == false);
    CHECK(file.strings_at("tokenizer.ggml.tokens")->size() == 512);
    CHECK(file.floats_at("tokenizer.ggml.scores")->size() == 512);
    CHECK(file.unsigned_list_at("coppice.feed_forward_length_unpadded", 64) == std::vector<int64_t>{40, 24});
    std::map<std::string, std::string> types;
    for (const GgufTensor& tensor : file.tensors()) types[tensor.name] = find_ggml_type(tensor.type)->name;
    CHECK(types["token_embd.weight"] == "Q8_0");
    CHECK(types["blk.1.ffn_down.weight"] == "Q4_0");
    CHECK(types["blk.1.attn_q_norm.weight"] == "F32");
    CHECK(file.tensors().size() == 2 + 2 * 11);
    const GgufFacts facts = gguf_facts(scratch.path / "a.gguf");
    CHECK(facts.general == general);
    CHECK(facts.quantised);
    CHECK(facts.weight_type == "Q4_0");
    CHECK(gguf_settings(scratch.path / "a.gguf").settings.add_bos == true);
  }

  TEST_CASE("gguf_export: rows of the vocabulary beyond the tokens get unused tokens of their own") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    ModelConfig config = config_of("llama");
    config.vocab_size = 515;
    const Model model = tiny_model(config, 3);
    export_gguf(scratch.path / "a.gguf", model, tokenizer);
    const GgufVocabulary vocabulary = gguf_tokenizer(scratch.path / "a.gguf");
    REQUIRE(vocabulary.tokens.size() == 515);
    CHECK(vocabulary.tokens[514] == "[PAD514]");
    CHECK(vocabulary.token_types[514] == 5);
    CHECK(vocabulary.token_types[511] == 1);
    CHECK(same_parameters(import_gguf(scratch.path / "a.gguf"), model));
  }

  TEST_CASE("gguf_export: what refuses before anything is written, and weights that no file may hold") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    Model model = tiny_model(config_of("llama"), 1);
    const fs::path path = scratch.path / "a.gguf";
    CHECK_THROWS_WITH_AS(export_gguf(path, model, tokenizer, {.type = "q5_0"}), doctest::Contains("got 'q5_0'"),
                         UserError);
    ModelConfig narrow = config_of("llama");
    narrow.hidden_size = 24;
    CHECK_THROWS_WITH_AS(export_gguf(path, tiny_model(narrow, 1), tokenizer, {.type = "q8_0"}),
                         doctest::Contains("has rows of 24, Q8_0 goes by blocks of 32"), UserError);
    export_gguf(path, tiny_model(narrow, 1), tokenizer, {.type = "bf16"});
    fs::remove(path);
    ModelConfig both = config_of("qwen3");
    both.qkv_bias = true;
    CHECK_THROWS_WITH_AS(check_gguf_export(both, tokenizer, {}), doctest::Contains("beside biases"), UserError);
    ModelConfig wide_heads = tiny_config(false);
    wide_heads.qkv_bias = true;
    CHECK_NOTHROW(check_gguf_export(wide_heads, tokenizer, {}));
    wide_heads.head_dim = 16;
    CHECK_THROWS_WITH_AS(check_gguf_export(wide_heads, tokenizer, {}),
                         doctest::Contains("= 32 / 4, this one has head_dim 16"), UserError);
    ModelConfig small = config_of("llama");
    small.vocab_size = 511;
    CHECK_THROWS_WITH_AS(check_gguf_export(small, tokenizer, {}), doctest::Contains("512 pieces"), UserError);

    float* weights = model.arena->edit_master()["embed_tokens.weight"].mutable_data_ptr<float>();
    weights[100] = 70000;
    CHECK_THROWS_WITH_AS(export_gguf(path, model, tokenizer, {.type = "f16"}),
                         doctest::Contains("beyond what F16 can say"), UserError);
    weights[100] = NAN;
    for (const char* type : {"f32", "bf16", "q8_0"})
      CHECK_THROWS_WITH_AS(export_gguf(path, model, tokenizer, {.type = type}), doctest::Contains("not finite"),
                           UserError);
    CHECK(scratch.names() == std::vector<std::string>{"tokenizer.model"});
  }
}

TEST_SUITE("parity") {
  TEST_CASE("gguf_export: re-imported parameters are ours, bit for bit, for every shape of model") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const fs::path path = scratch.path / "a.gguf";
    for (const char* architecture : {"llama", "qwen2", "qwen3"})
      for (const bool tied : {true, false})
        for (const std::vector<int64_t>& widths : {std::vector<int64_t>{40, 40}, {40, 7, 24}}) {
          CAPTURE(std::string(architecture));
          ModelConfig config = config_of(architecture, widths);
          config.tie_word_embeddings = tied;
          config.head_dim = 12;  // on purpose not hidden_size / heads, where that may be
          if (config.qkv_bias) config.hidden_size = 48;
          if (tied) config.rope_scaling = RopeScaling{.factor = 8.0, .original_max_position_embeddings = 64};
          const Model model = tiny_model(config, 5);
          const GgufExportReport report = export_gguf(path, model, tokenizer);
          CHECK(report.max_logit_difference <= 1e-5);
          CHECK(report.bytes == fs::file_size(path));
          CHECK(same_parameters(import_gguf(path), model));
          std::set<std::string> expected, found;
          for (const Parameter& parameter : parameter_table(config)) expected.insert(parameter.gguf_name);
          if (tied) expected.insert("rope_freqs.weight");
          const GgufFile file(path);
          for (const GgufTensor& tensor : file.tensors()) found.insert(tensor.name);
          CHECK(found == expected);
          CHECK(gguf_facts(path).architecture == architecture);
        }
  }

  TEST_CASE("gguf_export: every type holds the rounded weights, vectors unrounded") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const fs::path path = scratch.path / "a.gguf";
    const std::map<std::string, GgmlType> types = {
        {"f16", GgmlType::f16}, {"bf16", GgmlType::bf16}, {"q8_0", GgmlType::q8_0}, {"q4_0", GgmlType::q4_0}};
    for (const char* architecture : {"llama", "qwen3"})
      for (const auto& [name, type] : types) {
        CAPTURE(name);
        ModelConfig config = config_of(architecture, {40, 7});
        config.tie_word_embeddings = false;
        const Model model = tiny_model(config, 5);
        export_gguf(path, model, tokenizer, {.type = name});
        const Model back = import_gguf(path);
        CHECK(back.config == config);
        const MasterReader ours = model.arena->read_master(), theirs = back.arena->read_master();
        for (const Parameter& parameter : parameter_table(config)) {
          CAPTURE(parameter.name);
          const bool table = parameter.axes[0] == Axis::vocab;
          const at::Tensor expected =
              parameter.shape.size() == 1
                  ? ours[parameter.name]
                  : rounded(ours[parameter.name], table && type == GgmlType::q4_0 ? GgmlType::q8_0 : type);
          CHECK(at::equal(theirs[parameter.name], expected));
        }
      }
  }
}

TEST_SUITE("faults") {
  TEST_CASE("gguf_export: other logits after reading back, and nothing is put in place; the older file stays") {
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Model older = tiny_model(config_of("llama"), 1), model = tiny_model(config_of("llama"), 2);
    const fs::path path = scratch.path / "a.gguf";
    for (const bool exists : {false, true}) {
      if (exists) export_gguf(path, older, tokenizer);
      set_failpoints("export.logits=nan");
      CHECK_THROWS_WITH_AS(export_gguf(path, model, tokenizer), doctest::Contains("other logits"), InternalError);
      set_failpoints("");
      CHECK(fs::exists(path) == exists);
    }
    CHECK(same_parameters(import_gguf(path), older));
    CHECK(scratch.names() == std::vector<std::string>{"a.gguf", "tokenizer.model"});
  }

  TEST_CASE("gguf_export: a full disk ends with exit 4, nothing is put in place, the older file stays") {
    start_torch(1);  // a forked child has no worker threads
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Model older = tiny_model(config_of("llama"), 1), model = tiny_model(config_of("llama"), 2);
    const fs::path path = scratch.path / "a.gguf";
    export_gguf(path, older, tokenizer);
    for (const rlim_t limit : {rlim_t{10}, rlim_t{30'000}}) {
      const int code = run_in_child([&] {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit rule{limit, limit};
        ::setrlimit(RLIMIT_FSIZE, &rule);
        export_gguf(path, model, tokenizer);
      });
      CHECK(code == static_cast<int>(ExitCode::io));
      CHECK(same_parameters(import_gguf(path), older));
      CHECK(scratch.names() == std::vector<std::string>{"a.gguf", "tokenizer.model"});
    }
    start_torch(2);
  }

  TEST_CASE("gguf_export: killed after each system call, the file is whole or absent") {
    start_torch(1);  // a forked child has no worker threads
    const ScratchFolder scratch;
    const Tokenizer tokenizer = tiny_tokenizer(scratch.path);
    const Model model = tiny_model(config_of("llama", {40}), 2);
    const fs::path path = scratch.path / "out" / "a.gguf";
    int num_kills = 0;
    for (int code = -1; code != 0; ++num_kills) {
      REQUIRE(num_kills < 200);
      fs::remove_all(scratch.path / "out");
      code = run_in_child([&] {
        set_failpoints("", static_cast<uint64_t>(num_kills) + 1);
        const SilentStderr silent;
        export_gguf(path, model, tokenizer);
      });
      CAPTURE(num_kills);
      CHECK((code == 0 || code == 128 + SIGKILL));
      if (fs::exists(path)) CHECK(same_parameters(import_gguf(path), model));
      if (code == 0) CHECK(fs::exists(path));
    }
    CHECK(num_kills >= 15);
    start_torch(2);
  }
}
