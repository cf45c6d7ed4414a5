// Copying: the runs; a model that knows nothing; and one made by hand whose only head looks a fixed number of tokens
// back, so that it copies at that distance and at no other.
#include "src/evaluate/copying.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <set>

using namespace coppice;

namespace {

constexpr int64_t kVocab = 48, kHidden = 128, kHead = 64;

std::vector<int64_t> ids_from(int64_t first, int64_t count) {
  std::vector<int64_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

ModelConfig one_head() {
  return {.vocab_size = kVocab,
          .hidden_size = kHidden,
          .num_hidden_layers = 1,
          .num_attention_heads = 1,
          .num_key_value_heads = 1,
          .head_dim = kHead,
          .intermediate_size = {8},
          .rope_theta = 10000,
          .tie_word_embeddings = false,
          .qk_norm = false,
          .qkv_bias = true,
          .max_position_embeddings = 64};
}

/// Token v is the unit vector v of the hidden states. Keys are one constant vector, queries the same turned back by
/// distance - 1 positions, so that scores are largest that far behind: where the repetition has the next token. Its
/// vector is moved to coordinates 64 and up, which the output head reads.
Model copier(int64_t distance) {
  Model model = make_model(one_head());
  const MasterEditor weights = model.arena->edit_master();
  const auto fill = [&](const char* name) { return weights[name]; };
  for (const char* norm :
       {"layers.0.input_layernorm.weight", "layers.0.post_attention_layernorm.weight", "norm.weight"})
    fill(norm).fill_(1);
  fill("embed_tokens.weight").narrow(1, 0, kVocab).copy_(at::eye(kVocab));
  fill("lm_head.weight").narrow(1, kHead, kVocab).copy_(at::eye(kVocab));
  fill("layers.0.self_attn.v_proj.weight").narrow(1, 0, kHead).copy_(at::eye(kHead));
  fill("layers.0.self_attn.o_proj.weight").narrow(0, kHead, kHead).copy_(at::eye(kHead));
  constexpr double kSharp = 20;  // the neighbours score 20^2 / 8 (1 - cos 1 + ..) = 50 nats less
  const at::Tensor angle = static_cast<double>(1 - distance) * rope_frequencies(model.config);
  fill("layers.0.self_attn.q_proj.bias").copy_(kSharp * at::cat({angle.cos(), angle.sin()}));
  fill("layers.0.self_attn.k_proj.bias").narrow(0, 0, kHead / 2).fill_(kSharp);
  return model;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("copying: distances and tokens by hand") {
    CHECK(copying_distances(15).empty());
    CHECK(copying_distances(16) == std::vector<int64_t>{8});
    CHECK(copying_distances(64) == std::vector<int64_t>{8, 16, 32});
    CHECK(copying_tokens(15) == 0);
    CHECK(copying_tokens(64) == 64 * 15 + 32 * 31 + 16 * 63);
    CHECK(copying_tokens(1024) - copying_tokens(1023) == 4 * 1023);  // four runs at least
  }

  TEST_CASE("copying: runs hold every id once before one comes again, in an order that nothing else decides") {
    const std::vector<int64_t> ids = ids_from(5, 40);
    const at::Tensor run_RD = copying_runs(ids, 32);
    REQUIRE(run_RD.sizes().vec() == std::vector<int64_t>{16, 32});
    std::set<std::vector<int64_t>> orders;
    for (int64_t r = 0; r < 16; ++r) {
      const int64_t* run = run_RD.const_data_ptr<int64_t>() + r * 32;
      orders.insert({run, run + 32});
      const std::set<int64_t> different(run, run + 32);
      CHECK(different.size() == 32);
      CHECK(*different.begin() >= 5);
      CHECK(*different.rbegin() < 45);
    }
    CHECK(orders.size() == 16);
    CHECK(at::equal(run_RD, copying_runs(ids, 32)));
    CHECK_FALSE(at::equal(run_RD.narrow(1, 0, 8).narrow(0, 0, 8), copying_runs(ids, 8).narrow(0, 0, 8)));
    const at::Tensor few_RD = copying_runs(ids_from(0, 3), 8);  // 3 + 3 + 2
    for (int64_t r = 0; r < few_RD.size(0); ++r)
      for (const int64_t first : {0, 3}) {
        const int64_t* lap = few_RD.const_data_ptr<int64_t>() + r * 8 + first;
        CHECK(std::set<int64_t>(lap, lap + 3).size() == 3);
      }
  }

  TEST_CASE("copying: a model of zeros guesses among all tokens; too few tokens or too short windows give no score") {
    const Model model = make_model(one_head());
    const std::vector<CopyingScore> scores = score_copying(model, ids_from(1, 40), 64, 8192);
    REQUIRE(scores.size() == 3);
    for (const CopyingScore& score : scores) {
      CHECK(score.loss == doctest::Approx(std::log(48.0)).epsilon(1e-6));
      CHECK(score.accuracy == 0);  // of equals it takes token 0, which no run holds
    }
    CHECK(scores[0].distance == 8);
    CHECK(scores[0].positions == 64 * 7);
    CHECK(scores[2].positions == 16 * 31);
    CHECK(score_copying(model, ids_from(1, 1), 64, 8192).empty());
    CHECK(score_copying(model, ids_from(1, 40), 15, 8192).empty());
  }

  TEST_CASE("copying: a head that looks 15 tokens back copies what repeats after 16, whatever the batch") {
    const Model model = copier(16);
    for (const int64_t batch_tokens : {1, 100, 8192}) {
      int64_t batches = 0;
      const std::vector<CopyingScore> scores =
          score_copying(model, ids_from(0, kVocab), 64, batch_tokens, [&] { ++batches; });
      // 100 tokens hold 6 of 64 sequences of 15, 3 of 32 of 31 and one of 16 of 63
      CHECK(batches == (batch_tokens == 1 ? 64 + 32 + 16 : batch_tokens == 100 ? 11 + 11 + 16 : 3));
      REQUIRE(scores.size() == 3);
      CHECK(scores[1].accuracy == 1);
      CHECK(scores[1].loss < 0.01);  // one logit of about 11 against 47 of 0
      for (const size_t other : {size_t{0}, size_t{2}}) {
        CHECK(scores[other].accuracy == 0);  // it is sure of a token that cannot come: none is twice in a run
        CHECK(scores[other].loss > 5);
      }
    }
    CHECK(score_copying(copier(32), ids_from(0, kVocab), 64, 8192)[2].accuracy == 1);
  }
}
