// Logits with kept keys and values against the whole text read at once: every kind of model, prompt and cache size.
#include "src/model/decode_session.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "src/base/errors.h"
#include "src/model/parameters.h"

using namespace coppice;

namespace {

struct Case {
  const char* name;
  int64_t heads, kv_heads, head_dim;
  bool qk_norm = false, qkv_bias = false, scaled = false, tied = true;
};
constexpr Case kCases[] = {
    {.name = "Llama, one head of keys", .heads = 3, .kv_heads = 1, .head_dim = 16},
    {.name = "Llama 3.1", .heads = 4, .kv_heads = 2, .head_dim = 32, .scaled = true, .tied = false},
    {.name = "Qwen2", .heads = 6, .kv_heads = 2, .head_dim = 64, .qkv_bias = true},
    {.name = "Qwen3, as many heads of keys", .heads = 2, .kv_heads = 2, .head_dim = 18, .qk_norm = true},
};

Model random_model(const Case& one, at::ScalarType compute = at::kFloat) {
  ModelConfig config = preset("test", "t");
  config.num_attention_heads = one.heads, config.num_key_value_heads = one.kv_heads, config.head_dim = one.head_dim;
  config.hidden_size = 33, config.intermediate_size = {96, 41};
  config.qk_norm = one.qk_norm, config.qkv_bias = one.qkv_bias, config.tie_word_embeddings = one.tied;
  config.max_position_embeddings = 256;
  if (one.scaled) config.rope_scaling = RopeScaling{.original_max_position_embeddings = 64};
  Model model = make_model(config, {.compute = compute});
  initialise_parameters(config, *model.arena, 7);
  at::manual_seed(3);
  for (const Parameter& row : parameter_table(config))
    if (row.shape.size() == 1) model.arena->parameter(row.name).add_(at::randn(row.shape) * 0.3);
  return model;
}

std::vector<int64_t> random_tokens(const Model& model, int64_t count) {
  at::manual_seed(5);
  const at::Tensor tokens = at::randint(model.config.vocab_size, {count}, at::kLong);
  return {tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + count};
}

at::Tensor logits_of(const Model& model, std::span<const int64_t> tokens) {
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  return decoder_logits(model, {.token_BT = at::tensor(ids).unsqueeze(0),
                                .position_BT = at::arange(std::ssize(ids)).unsqueeze(0),
                                .document_BT = {}});
}

/// Largest difference, of the largest logit.
double difference(std::span<const float> got_V, const at::Tensor& expected_V) {
  const at::Tensor got = at::tensor(std::vector<float>(got_V.begin(), got_V.end()));
  return ((got - expected_V).abs().max() / expected_V.abs().max()).item<double>();
}

}  // namespace

TEST_SUITE("parity") {
  TEST_CASE("decode_session: after each token, the logits of the whole text") {
    for (const Case& one : kCases) {
      CAPTURE(one.name);
      const Model model = random_model(one);
      const std::vector<int64_t> text = random_tokens(model, 150);  // several pieces of the attention's
      const at::Tensor expected = logits_of(model, text);
      for (const int64_t prompt : {1, 2, 63, 140}) {
        CAPTURE(prompt);
        DecodeSession session(model, 150);
        double worst = difference(session.read(std::span(text).first(prompt)), expected[prompt - 1]);
        for (int64_t t = prompt; t < 150; ++t)
          worst = std::max(worst, difference(session.read(std::span(text).subspan(t, 1)), expected[t]));
        CHECK(worst <= 1e-5);
        CHECK(session.length() == 150);
      }
    }
  }

  TEST_CASE("decode_session: in bfloat16, too, within what it rounds") {
    for (const Case& one : {kCases[1], kCases[2]}) {
      CAPTURE(one.name);
      const Model model = random_model(one, at::kBFloat16);
      const std::vector<int64_t> text = random_tokens(model, 24);
      const at::Tensor expected = logits_of(model, text);
      for (const int64_t prompt : {1, 20}) {
        CAPTURE(prompt);
        DecodeSession session(model, 24);
        double worst = difference(session.read(std::span(text).first(prompt)), expected[prompt - 1]);
        for (int64_t t = prompt; t < 24; ++t)
          worst = std::max(worst, difference(session.read(std::span(text).subspan(t, 1)), expected[t]));
        CHECK(worst <= 5e-2);
      }
    }
  }

  TEST_CASE("decode_session: several tokens behind others, and another text after clear()") {
    const Model model = random_model(kCases[1]);
    const std::vector<int64_t> text = random_tokens(model, 40);
    DecodeSession session(model, 40);
    session.read(std::span(text).first(10));
    CHECK(difference(session.read(std::span(text).subspan(10, 30)), logits_of(model, text)[39]) <= 1e-5);
    session.clear();
    const std::span<const int64_t> other = std::span(text).subspan(7, 20);
    CHECK(difference(session.read(other), logits_of(model, other)[19]) <= 1e-5);
  }
}

TEST_SUITE("unit") {
  TEST_CASE("decode_session: more than there is room for, tokens outside the vocabulary, too many positions") {
    const Model model = random_model(kCases[0]);
    DecodeSession session(model, 4);
    const std::vector<int64_t> text{1, 2, 3, 4, 5}, outside{1, 300};
    CHECK_THROWS_AS(session.read(text), InternalError);
    CHECK_THROWS_AS(session.read(outside), InternalError);
    CHECK_THROWS_AS(session.read({}), InternalError);
    CHECK_THROWS_AS(DecodeSession(model, 257), InternalError);
    CHECK_THROWS_AS(DecodeSession(model, 0), InternalError);
  }
}
