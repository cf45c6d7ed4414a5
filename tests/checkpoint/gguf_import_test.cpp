// Import of GGUF files built by hand: shape, names, rows of q and k, padding; and a refusal for every key and tensor
// that would change the mathematics.
#include "src/checkpoint/gguf_import.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/checkpoint/ggml_types.h"
#include "src/checkpoint/rope_factors.h"
#include "src/model/parameters.h"
#include "src/tensors/shape.h"
#include "tests/checkpoint/gguf_bytes.h"
#include "tests/scratch_folder.h"

namespace fs = std::filesystem;
using namespace coppice;
using namespace coppice::test;

namespace {

struct Weights {
  std::vector<uint64_t> ne;  // the length of a row first
  uint32_t type = 0;
  std::string data = {};  // empty: zeros
};

/// A model of one layer: hidden 32, two heads of 8 over one of keys and values (8 rows), FFN 64, six tokens, tied.
struct TinyFile {
  std::map<std::string, std::string> pairs;
  std::map<std::string, Weights> tensors;

  explicit TinyFile(const std::string& architecture = "llama") {
    const std::string a = architecture + ".";
    set(pair_text("general.architecture", architecture), "general.architecture");
    for (const auto& [key, value] : std::map<std::string, uint32_t>{{"block_count", 1},
                                                                    {"context_length", 128},
                                                                    {"embedding_length", 32},
                                                                    {"feed_forward_length", 64},
                                                                    {"attention.head_count", 2},
                                                                    {"attention.head_count_kv", 1},
                                                                    {"attention.key_length", 8},
                                                                    {"attention.value_length", 8}})
      set(pair_u32(a + key, value), a + key);
    set(pair_f32(a + "attention.layer_norm_rms_epsilon", 1e-6F), a + "attention.layer_norm_rms_epsilon");
    tensors = {{"token_embd.weight", {{32, 6}}},    {"blk.0.attn_norm.weight", {{32}}},
               {"blk.0.attn_q.weight", {{32, 16}}}, {"blk.0.attn_k.weight", {{32, 8}}},
               {"blk.0.attn_v.weight", {{32, 8}}},  {"blk.0.attn_output.weight", {{16, 32}}},
               {"blk.0.ffn_norm.weight", {{32}}},   {"blk.0.ffn_gate.weight", {{32, 64}}},
               {"blk.0.ffn_up.weight", {{32, 64}}}, {"blk.0.ffn_down.weight", {{64, 32}}},
               {"output_norm.weight", {{32}}}};
    if (architecture == "qwen3") tensors["blk.0.attn_q_norm.weight"] = tensors["blk.0.attn_k_norm.weight"] = {{8}};
    if (architecture == "qwen2") {
      tensors["blk.0.attn_q.bias"] = {{16}};
      tensors["blk.0.attn_k.bias"] = tensors["blk.0.attn_v.bias"] = {{8}};
    }
  }
  void set(const std::string& bytes, const std::string& key) { pairs[key] = bytes; }
  void set_u32(const std::string& key, uint32_t value) { set(pair_u32(key, value), key); }
  void set_f32(const std::string& key, float value) { set(pair_f32(key, value), key); }
  void set_text(const std::string& key, const std::string& value) { set(pair_text(key, value), key); }

  std::string bytes() const {
    GgufBytes file;
    for (const auto& [key, bytes] : pairs) file.pairs.push_back(bytes);
    for (const auto& [name, weights] : tensors) {
      const GgmlTypeRow& row = *find_ggml_type(weights.type);
      size_t size = row.bytes;
      for (const uint64_t n : weights.ne) size *= n;
      size /= row.elements;
      file.tensors.push_back(tensor(name, weights.ne, weights.type, file.data.size()));
      file.data += weights.data.empty() ? std::string(size, '\0') : weights.data;
      file.data.resize((file.data.size() + 31) / 32 * 32, '\0');
    }
    return file.bytes();
  }
};

/// Values 0, 1, 2, ... as F32.
std::string counted(size_t count) {
  std::string data;
  for (size_t i = 0; i < count; ++i) data += raw(static_cast<float>(i));
  return data;
}
template <class T>
std::string list_bytes(const std::vector<T>& values) {
  std::string data;
  for (const T value : values) data += raw(value);
  return data;
}

std::string refusal_of(const fs::path& path) {
  try {
    check_gguf_file(path);
  } catch (const UserError& error) {
    CHECK(error.code() == ExitCode::bad_file);
    return error.what();
  }
  return "accepted";
}

struct Refused {
  const char* name;
  std::function<void(TinyFile&)> change;
  const char* message;
};

const std::vector<Refused> kRefused = {
    {"no architecture", [](TinyFile& f) { f.pairs.erase("general.architecture"); }, "general.architecture is missing"},
    {"gemma", [](TinyFile& f) { f.set_text("general.architecture", "gemma3"); },
     "architecture 'gemma3' is not supported: llama, qwen2, qwen3 are read"},
    {"an adapter", [](TinyFile& f) { f.set_text("general.type", "adapter"); }, "general.type 'adapter'"},
    {"no layers", [](TinyFile& f) { f.set_u32("llama.block_count", 0); }, "llama.block_count: got 0"},
    {"1025 layers", [](TinyFile& f) { f.set_u32("llama.block_count", 1025); }, "got 1025, expected 0 to 1024"},
    {"layers as text", [](TinyFile& f) { f.set_text("llama.block_count", "1"); }, "got string, expected an integer"},
    {"no hidden size", [](TinyFile& f) { f.pairs.erase("llama.embedding_length"); },
     "llama.embedding_length is missing"},
    {"no context", [](TinyFile& f) { f.pairs.erase("llama.context_length"); }, "llama.context_length is missing"},
    {"no heads", [](TinyFile& f) { f.pairs.erase("llama.attention.head_count"); },
     "llama.attention.head_count is missing"},
    {"no epsilon", [](TinyFile& f) { f.pairs.erase("llama.attention.layer_norm_rms_epsilon"); },
     "rms_epsilon is missing"},
    {"epsilon of an integer", [](TinyFile& f) { f.set_u32("llama.attention.layer_norm_rms_epsilon", 1); },
     "got u32, expected f32"},
    {"no width", [](TinyFile& f) { f.pairs.erase("llama.feed_forward_length"); },
     "llama.feed_forward_length is missing"},
    {"widths for other layers",
     [](TinyFile& f) {
       f.set(pair_list<uint32_t>("llama.feed_forward_length", 4, {64, 64}), "llama.feed_forward_length");
     },
     "2 numbers, expected one"},
    {"a width of 0",
     [](TinyFile& f) { f.set(pair_list<uint32_t>("llama.feed_forward_length", 4, {0}), "llama.feed_forward_length"); },
     "expected one of 1"},
    {"another width", [](TinyFile& f) { f.set_u32("llama.feed_forward_length", 96); },
     "tensor blk.0.ffn_gate.weight: got (64, 32), expected (96, 32)"},
    {"experts", [](TinyFile& f) { f.set_u32("llama.expert_count", 8); }, "llama.expert_count = 8 is not supported"},
    {"sliding window", [](TinyFile& f) { f.set_u32("llama.attention.sliding_window", 64); }, "sliding_window = 64"},
    {"capped logits", [](TinyFile& f) { f.set_f32("llama.final_logit_softcapping", 30); }, "softcapping = 30"},
    {"scaled logits", [](TinyFile& f) { f.set_f32("llama.logit_scale", 0.5F); }, "logit_scale = 0.5"},
    {"bidirectional", [](TinyFile& f) { f.set(pair_bool("llama.attention.causal", false), "llama.attention.causal"); },
     "causal = false"},
    {"values of another size", [](TinyFile& f) { f.set_u32("llama.attention.value_length", 16); },
     "keys and values of one size"},
    {"partial RoPE", [](TinyFile& f) { f.set_u32("llama.rope.dimension_count", 4); }, "RoPE turns whole heads"},
    {"yarn",
     [](TinyFile& f) {
       f.set_text("llama.rope.scaling.type", "yarn");
       f.set_f32("llama.rope.scaling.factor", 4);
     },
     "'yarn' with factor 4"},
    {"linear by 2",
     [](TinyFile& f) {
       f.set_text("llama.rope.scaling.type", "linear");
       f.set_f32("llama.rope.scaling.factor", 2);
     },
     "'linear' with factor 2"},
    {"linear of old", [](TinyFile& f) { f.set_f32("llama.rope.scale_linear", 0.25F); }, "scale_linear = 0.25"},
    {"scaled attention", [](TinyFile& f) { f.set_f32("llama.rope.scaling.attn_factor", 1.2F); }, "attn_factor = 1.2"},
    {"factors of another length", [](TinyFile& f) { f.tensors["rope_freqs.weight"] = {{8}}; },
     "tensor rope_freqs.weight: 4 F32 expected"},
    {"factors that no scaling gives",
     [](TinyFile& f) {
       f.tensors["rope_freqs.weight"] = {{4}, 0, list_bytes<float>({1, 3, 2, 8})};
     },
     "other scalings of RoPE are not supported"},
    {"more tokens than rows",
     [](TinyFile& f) {
       f.set(pair_texts("tokenizer.ggml.tokens", {"a", "b", "c", "d", "e", "f", "g"}), "tokenizer.ggml.tokens");
     },
     "7 tokens, but the vocabulary table has 6 rows"},
    {"no embedding", [](TinyFile& f) { f.tensors.erase("token_embd.weight"); }, "token_embd.weight is missing"},
    {"an embedding of one dimension", [](TinyFile& f) { f.tensors["token_embd.weight"] = {{192}}; }, "or no matrix"},
    {"a tensor missing", [](TinyFile& f) { f.tensors.erase("blk.0.attn_v.weight"); },
     "tensor blk.0.attn_v.weight is missing, expected (8, 32)"},
    {"a tensor more",
     [](TinyFile& f) {
       f.tensors["blk.1.attn_v.weight"] = {{32, 8}};
     },
     "tensor 'blk.1.attn_v.weight' is not expected (1 additional)"},
    {"a bias of the output", [](TinyFile& f) { f.tensors["blk.0.attn_output.bias"] = {{32}}; },
     "'blk.0.attn_output.bias' is not expected"},
    {"turned",
     [](TinyFile& f) {
       f.tensors["blk.0.attn_output.weight"] = {{32, 16}};
     },
     "got (16, 32), expected (32, 16)"},
    {"a type that is not read",
     [](TinyFile& f) {
       f.tensors["blk.0.attn_q.weight"] = {{32, 16}, 20};
     },
     "is IQ4_NL: F32, F16, Q4_0"},
    {"true widths too wide",
     [](TinyFile& f) { f.set(pair_list<uint32_t>("coppice.feed_forward_length_unpadded", 4, {65}), "coppice"); },
     "at most the padded one"},
    {"true widths too many",
     [](TinyFile& f) {
       f.set(pair_list<uint32_t>("coppice.feed_forward_length_unpadded", 4, {9, 9}), "coppice");
     },
     "for each of 1 layers"},
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("gguf_import: the shape, defaults where keys are absent") {
    const ScratchFolder scratch;
    TinyFile file;
    ModelConfig config = import_gguf_config(scratch.write("a.gguf", file.bytes()));
    CHECK(config.vocab_size == 6);
    CHECK(config.hidden_size == 32);
    CHECK(config.num_hidden_layers == 1);
    CHECK(config.num_attention_heads == 2);
    CHECK(config.num_key_value_heads == 1);
    CHECK(config.head_dim == 8);
    CHECK(config.intermediate_size == std::vector<int64_t>{64});
    CHECK(config.max_position_embeddings == 128);
    CHECK(config.rms_norm_eps == 1e-6);
    CHECK(config.rope_theta == 10000.0);
    CHECK(config.tie_word_embeddings);
    CHECK_FALSE(config.qk_norm);
    CHECK_FALSE(config.qkv_bias);
    CHECK_FALSE(config.rope_scaling.has_value());

    file.set_f32("llama.rope.freq_base", 1e6F);
    file.set_text("llama.rope.scaling.type", "linear");
    file.set_f32("llama.rope.scaling.factor", 1);
    file.set_u32("llama.expert_count", 0);
    file.tensors["output.weight"] = {{32, 6}};
    for (const char* key :
         {"llama.attention.key_length", "llama.attention.value_length", "llama.attention.head_count_kv"})
      file.pairs.erase(key);
    file.set_u32("llama.attention.head_count", 4);  // four heads of 32 / 4, keys and values for each
    file.tensors["blk.0.attn_q.weight"] = file.tensors["blk.0.attn_k.weight"] = file.tensors["blk.0.attn_v.weight"] =
        file.tensors["blk.0.attn_output.weight"] = {{32, 32}};
    const fs::path path = scratch.write("b.gguf", file.bytes());
    config = import_gguf_config(path);
    CHECK(config.num_key_value_heads == 4);
    CHECK(config.head_dim == 8);
    CHECK(config.rope_theta == 1e6);
    CHECK_FALSE(config.tie_word_embeddings);
    CHECK(refusal_of(path) == "accepted");
  }

  TEST_CASE("gguf_import: architectures, and the scaling of RoPE") {
    const ScratchFolder scratch;
    for (const char* name : {"llama", "qwen2", "qwen3"}) {
      CAPTURE(name);
      TinyFile file(name);
      const std::vector<float> factors =
          rope_factors({.factor = 8.0, .original_max_position_embeddings = 64}, 10000.0, 8);
      file.tensors["rope_freqs.weight"] = {{4}, 0, list_bytes(factors)};
      const fs::path path = scratch.write("a.gguf", file.bytes());
      const ModelConfig config = import_gguf_config(path);
      CHECK(config.qk_norm == (name == std::string("qwen3")));
      CHECK(config.qkv_bias == (name == std::string("qwen2")));
      REQUIRE(config.rope_scaling.has_value());
      CHECK(rope_factors(*config.rope_scaling, 10000.0, 8) == factors);
      CHECK(gguf_facts(path).architecture == name);
      file.tensors["rope_freqs.weight"].data = list_bytes<float>({1, 1, 1, 1});
      CHECK_FALSE(import_gguf_config(scratch.write("a.gguf", file.bytes())).rope_scaling.has_value());
    }
  }

  TEST_CASE("gguf_import: rows of q and k stand in pairs for llama, in halves for qwen3; other tensors as they are") {
    const ScratchFolder scratch;
    for (const char* name : {"llama", "qwen3"}) {
      TinyFile file(name);
      file.tensors["blk.0.attn_q.weight"].data = counted(16 * 32);
      file.tensors["blk.0.attn_k.weight"].data = counted(8 * 32);
      file.tensors["blk.0.attn_v.weight"].data = counted(8 * 32);
      const Model model = import_gguf(scratch.write("a.gguf", file.bytes()));
      const auto rows = [&](const char* projection) {
        std::vector<int64_t> first;
        const at::Tensor weight =
            model.arena->read_master()[std::string("layers.0.self_attn.") + projection + ".weight"];
        for (int64_t row = 0; row < weight.size(0); ++row) {
          first.push_back(static_cast<int64_t>(weight[row][0].item<float>()) / 32);
          CHECK(weight[row][31].item<float>() - weight[row][0].item<float>() == 31.0F);
        }
        return first;
      };
      const bool pairs = name == std::string("llama");
      const std::vector<int64_t> halves{0, 1, 2, 3, 4, 5, 6, 7}, neighbours{0, 2, 4, 6, 1, 3, 5, 7};
      CHECK(rows("v_proj") == halves);
      CHECK(rows("k_proj") == (pairs ? neighbours : halves));
      CHECK(rows("q_proj") == (pairs ? std::vector<int64_t>{0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15}
                                     : std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}));
    }
  }

  TEST_CASE("gguf_import: rows of the vocabulary beyond those asked for are left out") {
    const ScratchFolder scratch;
    TinyFile file;
    file.tensors["token_embd.weight"].data = counted(6 * 32);
    const fs::path path = scratch.write("a.gguf", file.bytes());
    const Model model = import_gguf(path, 5);
    CHECK(model.config.vocab_size == 5);
    CHECK(at::equal(model.arena->read_master()["embed_tokens.weight"], at::arange(160, at::kFloat).view({5, 32})));
    CHECK_THROWS_WITH_AS(import_gguf(path, 7), doctest::Contains("6 rows, fewer than 7 ids"), UserError);
  }

  TEST_CASE("gguf_import: channels behind the true width are cut, and must be zero") {
    const ScratchFolder scratch;
    TinyFile file;
    file.set(pair_list<uint32_t>("coppice.feed_forward_length_unpadded", 4, {3}), "coppice");
    std::vector<float> gate(64 * 32, 0.0F), down(32 * 64, 0.0F);
    std::fill_n(gate.begin(), 3 * 32, 2.0F);
    for (size_t row = 0; row < 32; ++row) std::fill_n(down.begin() + static_cast<std::ptrdiff_t>(row * 64), 3, 5.0F);
    const auto path = [&] {
      file.tensors["blk.0.ffn_gate.weight"].data = list_bytes(gate);
      file.tensors["blk.0.ffn_down.weight"].data = list_bytes(down);
      return scratch.write("a.gguf", file.bytes());
    };
    const Model model = import_gguf(path());
    CHECK(model.config.intermediate_size == std::vector<int64_t>{3});
    CHECK(at::equal(model.arena->read_master()["layers.0.mlp.gate_proj.weight"], at::full({3, 32}, 2.0F)));
    CHECK(at::equal(model.arena->read_master()["layers.0.mlp.down_proj.weight"], at::full({32, 3}, 5.0F)));
    down[3] = 1e-30F;
    CHECK_THROWS_WITH_AS(import_gguf(path()), doctest::Contains("ffn_down.weight is not zero beyond channel 3"),
                         UserError);
    down[3] = 0, gate.back() = 1;
    CHECK_THROWS_WITH_AS(import_gguf(path()), doctest::Contains("ffn_gate.weight is not zero beyond channel 3"),
                         UserError);
  }

  TEST_CASE("gguf_import: mixed types, and weights that are not finite") {
    const ScratchFolder scratch;
    TinyFile file;
    std::string q8;
    for (int row = 0; row < 6; ++row) q8 += raw<uint16_t>(0x3C00) + std::string(32, static_cast<char>(row));
    file.tensors["token_embd.weight"] = {{32, 6}, 8, q8};
    file.tensors["blk.0.attn_norm.weight"] = {{32}, 30, [] {
                                                std::string ones;
                                                for (int i = 0; i < 32; ++i) ones += raw<uint16_t>(0x3F80);
                                                return ones;
                                              }()};
    fs::path path = scratch.write("a.gguf", file.bytes());
    const Model model = import_gguf(path);
    CHECK(model.arena->read_master()["embed_tokens.weight"][5][31].item<float>() == 5.0F);
    CHECK(at::equal(model.arena->read_master()["layers.0.input_layernorm.weight"], at::ones({32})));
    CHECK(gguf_facts(path).quantised);
    CHECK(gguf_facts(path).weight_type == "F32");
    file.tensors["token_embd.weight"].data[1] = 0x7C;  // d = infinity
    path = scratch.write("a.gguf", file.bytes());
    CHECK(refusal_of(path) == "accepted");  // values are not looked at
    CHECK_THROWS_WITH_AS(import_gguf(path), doctest::Contains("token_embd.weight holds values that are not finite"),
                         UserError);
  }

  TEST_CASE("gguf_import: each key and tensor that would change the mathematics is refused by its name") {
    const ScratchFolder scratch;
    for (const char* name : {"llama", "qwen2", "qwen3"})
      CHECK(refusal_of(scratch.write("a.gguf", TinyFile(name).bytes())) == "accepted");
    for (const Refused& refused : kRefused) {
      CAPTURE(refused.name);
      TinyFile file;
      refused.change(file);
      const std::string refusal = refusal_of(scratch.write("a.gguf", file.bytes()));
      CHECK_MESSAGE(refusal.find(refused.message) != std::string::npos, refusal);
    }
    TinyFile both("qwen3");
    both.tensors["blk.0.attn_q.bias"] = {{16}};
    CHECK(refusal_of(scratch.write("a.gguf", both.bytes())).find("the one or the other") != std::string::npos);
  }

  TEST_CASE("gguf_import: tokenizer, settings and names") {
    const ScratchFolder scratch;
    TinyFile file;
    CHECK_THROWS_WITH_AS(gguf_tokenizer(scratch.write("a.gguf", file.bytes())), doctest::Contains("holds no tokenizer"),
                         UserError);
    const auto set = [&](const std::string& bytes, const char* key) { file.set(bytes, key); };
    set(pair_text("tokenizer.ggml.model", "gpt2"), "m");
    set(pair_text("tokenizer.ggml.pre", "qwen2"), "p");
    set(pair_texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<e>", "<t>"}), "t");
    set(pair_list<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 3, 3}), "tt");
    set(pair_texts("tokenizer.ggml.merges", {"a b"}), "me");
    set(pair_u32("tokenizer.ggml.eos_token_id", 3), "e");
    set(pair_u32("tokenizer.ggml.eot_token_id", 4), "eot");
    set(pair_text("tokenizer.chat_template", "{{ x }}\n"), "c");
    set(pair_text("general.name", "Small one"), "n");
    set(pair_text("general.license", "mit"), "l");
    set(pair_u32("general.base_model.count", 1), "b");
    set(pair_text("general.base_model.0.name", "Large one"), "b0");
    set(pair_text("general.base_model.0.repo_url", "somewhere/large"), "b1");
    set(pair_text("general.size_label", "\xFF"), "s");
    const fs::path path = scratch.write("a.gguf", file.bytes());
    const GgufVocabulary vocabulary = gguf_tokenizer(path);
    CHECK(vocabulary.model == "gpt2");
    CHECK(vocabulary.pre == "qwen2");
    CHECK(vocabulary.tokens == std::vector<std::string>{"a", "b", "ab", "<e>", "<t>"});
    CHECK(vocabulary.token_types == std::vector<int32_t>{1, 1, 1, 3, 3});
    CHECK(vocabulary.merges == std::vector<std::string>{"a b"});
    CHECK(vocabulary.eos_id == 3);
    CHECK_FALSE(vocabulary.bos_id.has_value());
    const ReadSettings read = gguf_settings(path);
    CHECK(read.settings.config_ids == Json::parse(R"({"eos_token_id": [3, 4]})"));
    CHECK(read.settings.chat_template == Json("{{ x }}\n"));
    CHECK(read.settings.add_bos == false);
    CHECK_FALSE(read.settings.split_special_tokens);
    CHECK(read.left_behind.empty());
    const GgufFacts facts = gguf_facts(path);
    CHECK(facts.general == GgufGeneral{.name = "Small one",
                                       .basename = "",
                                       .size_label = "",  // not UTF-8
                                       .license = "mit",
                                       .base_models = {{"Large one", "", "", "somewhere/large"}},
                                       .datasets = {}});

    set(pair_bool("tokenizer.ggml.add_bos_token", true), "ab");
    set(pair_bool("tokenizer.ggml.add_eos_token", true), "ae");
    CHECK(gguf_settings(scratch.write("a.gguf", file.bytes())).left_behind.size() == 2);
    set(pair_u32("tokenizer.ggml.eos_token_id", 5), "e");
    CHECK_THROWS_WITH_AS(gguf_tokenizer(scratch.write("a.gguf", file.bytes())),
                         doctest::Contains("got 5, expected 0 to 4"), UserError);
    set(pair_u32("tokenizer.ggml.eos_token_id", 3), "e");
    set(pair_list<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 3}), "tt");
    CHECK_THROWS_WITH_AS(gguf_tokenizer(scratch.write("a.gguf", file.bytes())),
                         doctest::Contains("4 entries for 5 tokens"), UserError);
    set(pair_list<uint8_t>("tokenizer.ggml.token_type", 0, {1, 1, 1, 3, 7}), "tt");
    CHECK_THROWS_WITH_AS(gguf_tokenizer(scratch.write("a.gguf", file.bytes())), doctest::Contains("element 4 is 7"),
                         UserError);
    set(pair_text("tokenizer.ggml.token_type", "none"), "tt");
    CHECK_THROWS_WITH_AS(gguf_tokenizer(scratch.write("a.gguf", file.bytes())), doctest::Contains("got string"),
                         UserError);
  }
}
