#include "src/model/continuations.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <cmath>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

Model random_model(int64_t max_position = 128) {
  ModelConfig config = preset("test", "t");
  config.max_position_embeddings = max_position;
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 11);
  scale_master(*model.arena, 2.0);
  return model;
}

std::vector<int64_t> ids(size_t count, int64_t seed) {
  std::vector<int64_t> result;
  for (size_t i = 0; i < count; ++i) result.push_back((seed * 7919 + static_cast<int64_t>(i) * 104729) % 97 + 1);
  return result;
}

/// One sequence alone, all its logits, in double.
double log_likelihood(const Model& model, const Continuation& one, int64_t context_kept) {
  std::vector<int64_t> sequence(one.context.end() - context_kept, one.context.end());
  sequence.insert(sequence.end(), one.continuation.begin(), one.continuation.end());
  const auto length = std::ssize(sequence);
  const at::Tensor logits = decoder_logits(model, {.token_BT = at::tensor(sequence).unsqueeze(0),
                                                   .position_BT = at::arange(length).unsqueeze(0),
                                                   .document_BT = {}})
                                .to(at::kDouble);
  double sum = 0;
  for (int64_t t = context_kept; t < length; ++t)
    sum += (logits[t - 1][sequence[static_cast<size_t>(t)]] - logits[t - 1].logsumexp(0)).item<double>();
  return sum;
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("continuations: a model of zeros knows nothing: log V a token") {
    const Model model = make_model(preset("test", "t"));
    const std::vector<Continuation> asked = {{ids(5, 1), ids(3, 2)}, {ids(1, 3), ids(1, 4)}, {ids(9, 5), ids(7, 6)}};
    const std::vector<ContinuationScore> sums = score_continuations(model, asked, 64);
    const double log_v = std::log(static_cast<double>(model.config.vocab_size));
    REQUIRE(sums.size() == 3);
    CHECK(sums[0].log_likelihood == doctest::Approx(-3 * log_v).epsilon(1e-6));
    CHECK(sums[1].log_likelihood == doctest::Approx(-1 * log_v).epsilon(1e-6));
    CHECK(sums[2].log_likelihood == doctest::Approx(-7 * log_v).epsilon(1e-6));
  }

  TEST_CASE("continuations: padded batches of any size equal one sequence at a time") {
    const Model model = random_model();
    std::vector<Continuation> asked;
    for (int64_t i = 0; i < 23; ++i)
      asked.push_back({ids(static_cast<size_t>(1 + 5 * i % 31), i), ids(static_cast<size_t>(1 + i % 6), i + 50)});
    for (const int64_t batch_tokens : {1, 40, 8192}) {
      int64_t batches = 0;
      const std::vector<ContinuationScore> sums =
          score_continuations(model, asked, batch_tokens, [&](size_t) { ++batches; });
      CHECK(batches == (batch_tokens == 1 ? 23 : batch_tokens == 8192 ? 1 : batches));
      for (size_t i = 0; i < asked.size(); ++i) {
        const double alone = log_likelihood(model, asked[i], std::ssize(asked[i].context));
        CHECK(std::abs(sums[i].log_likelihood - alone) <= 1e-4);
        CHECK(alone < -1.0);  // numbers that say something
      }
    }
  }

  TEST_CASE("continuations: what is longer than the model's positions loses its beginning") {
    const Model model = random_model(16);
    const Continuation long_context{ids(40, 1), ids(4, 2)};
    // 16 inputs predict 16 tokens: the last 13 of the context stand before 4 tokens of which the last is no input
    CHECK(score_continuations(model, std::vector{long_context}, 64)[0].log_likelihood ==
          doctest::Approx(log_likelihood(model, long_context, 13)).epsilon(1e-5));
    const Continuation whole{ids(3, 3), ids(16, 4)};
    CHECK(score_continuations(model, std::vector{whole}, 64)[0].log_likelihood ==
          doctest::Approx(log_likelihood(model, whole, 1)).epsilon(1e-5));
    CHECK_THROWS_AS(score_continuations(model, std::vector{Continuation{ids(3, 3), ids(17, 4)}}, 64), UserError);
  }

  TEST_CASE("continuations: tokens outside the vocabulary are refused; nothing asked, nothing answered") {
    const Model model = random_model();
    CHECK_THROWS_AS(score_continuations(model, std::vector{Continuation{{model.config.vocab_size}, {1}}}, 64),
                    UserError);
    CHECK_THROWS_AS(score_continuations(model, std::vector{Continuation{{1}, {-1}}}, 64), UserError);
    CHECK(score_continuations(model, {}, 64).empty());
  }
}
