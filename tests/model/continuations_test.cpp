#include "src/model/continuations.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

Model random_model(int64_t max_position = 128, at::ScalarType compute = at::kFloat) {
  ModelConfig config = preset("test", "t");
  config.max_position_embeddings = max_position;
  Model model = make_model(config, {.compute = compute});
  initialise_parameters(config, *model.arena, 11);
  scale_master(*model.arena, 2.0);
  return model;
}

std::vector<int64_t> ids(size_t count, int64_t seed) {
  std::vector<int64_t> result;
  for (size_t i = 0; i < count; ++i) result.push_back((seed * 7919 + static_cast<int64_t>(i) * 104729) % 97 + 1);
  return result;
}

/// A continuation that keeps its ids.
struct Asked {
  std::vector<int64_t> context, continuation;

  operator Continuation() const { return {context, continuation}; }
};

std::vector<ContinuationScore> score(const Model& model, const std::vector<Asked>& asked, int64_t batch_tokens = 64,
                                     const std::function<void(uint64_t)>& before_batch = {}) {
  const std::vector<Continuation> views(asked.begin(), asked.end());
  return score_continuations(model, views, batch_tokens, before_batch);
}

/// One sequence alone, all its logits, in double.
double log_likelihood(const Model& model, const Asked& one, int64_t context_kept) {
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
    const std::vector<Asked> asked = {{ids(5, 1), ids(3, 2)}, {ids(1, 3), ids(1, 4)}, {ids(9, 5), ids(7, 6)}};
    const std::vector<ContinuationScore> sums = score(model, asked);
    const double log_v = std::log(static_cast<double>(model.config.vocab_size));
    REQUIRE(sums.size() == 3);
    CHECK(sums[0].log_likelihood == doctest::Approx(-3 * log_v).epsilon(1e-6));
    CHECK(sums[1].log_likelihood == doctest::Approx(-1 * log_v).epsilon(1e-6));
    CHECK(sums[2].log_likelihood == doctest::Approx(-7 * log_v).epsilon(1e-6));
  }

  TEST_CASE("continuations: padded batches of any size equal one sequence at a time") {
    const Model model = random_model();
    std::vector<Asked> asked;
    for (int64_t i = 0; i < 23; ++i)
      asked.push_back({ids(static_cast<size_t>(1 + 5 * i % 31), i), ids(static_cast<size_t>(1 + i % 6), i + 50)});
    for (const int64_t batch_tokens : {1, 40, 8192}) {
      int64_t batches = 0;
      const std::vector<ContinuationScore> sums = score(model, asked, batch_tokens, [&](uint64_t) { ++batches; });
      CHECK(batches == (batch_tokens == 1 ? 23 : batch_tokens == 8192 ? 1 : batches));
      for (size_t i = 0; i < asked.size(); ++i) {
        const double alone = log_likelihood(model, asked[i], std::ssize(asked[i].context));
        CHECK(std::abs(sums[i].log_likelihood - alone) <= 1e-4);
        CHECK(alone < -1.0);  // numbers that say something
      }
    }
  }

  TEST_CASE("continuations: of a model that computes in bfloat16, from float32 logits of its hidden states") {
    const Model model = random_model(128, at::kBFloat16);
    const std::vector<Asked> asked = {{ids(9, 1), ids(3, 2)}, {ids(20, 3), ids(5, 4)}};
    const std::vector<ContinuationScore> sums = score(model, asked, 1);  // each alone, as below
    for (size_t i = 0; i < asked.size(); ++i)
      CHECK(std::abs(sums[i].log_likelihood - log_likelihood(model, asked[i], std::ssize(asked[i].context))) <= 0.2);
  }

  TEST_CASE("continuations: what several read alike is read once, and each gets what it would get alone") {
    const Model model = random_model(24);
    const std::vector<int64_t> question = ids(9, 1), other = ids(12, 2), long_one = ids(40, 3);
    std::vector<Asked> asked;
    for (const int64_t choice : {11, 12, 13, 14}) asked.push_back({question, {choice}});  // four choices of a token
    asked.push_back({question, {15, 16}});      // reads a token more: the four read its beginning
    asked.push_back({question, {15, 17}});      // reads what the one before it reads
    asked.push_back({question, {18, 16, 19}});  // parts behind the question
    asked.push_back({other, {11}});
    asked.push_back({other, {11}});     // the same twice
    asked.push_back({long_one, {20}});  // both read their last 24 tokens
    asked.push_back({long_one, {21}});
    asked.push_back({long_one, {20, 21}});  // and these end a token later
    const std::vector<Continuation> views(asked.begin(), asked.end());
    std::vector<int64_t> lengths;
    std::vector<std::vector<size_t>> answers;
    for (const ContinuationRow& row : continuation_rows(views, 24)) {
      lengths.push_back(row.length);
      answers.push_back(row.answers);
    }
    CHECK(lengths == std::vector<int64_t>{24, 24, 12, 11, 10});
    CHECK(answers == std::vector<std::vector<size_t>>{{9, 10}, {11}, {7, 8}, {6}, {4, 5, 0, 1, 2, 3}});
    for (const int64_t batch_tokens : {1, 8192}) {
      std::vector<uint64_t> done;
      const std::vector<ContinuationScore> sums =
          score(model, asked, batch_tokens, [&](uint64_t tokens) { done.push_back(tokens); });
      CHECK(done == (batch_tokens == 1 ? std::vector<uint64_t>{0, 24, 48, 60, 71} : std::vector<uint64_t>{0}));
      for (size_t i = 0; i < asked.size(); ++i) {
        INFO(i);
        const auto kept = std::min<int64_t>(std::ssize(asked[i].context), 25 - std::ssize(asked[i].continuation));
        CHECK(std::abs(sums[i].log_likelihood - log_likelihood(model, asked[i], kept)) <= 1e-4);
      }
      CHECK(sums[0].log_likelihood != sums[1].log_likelihood);
    }
  }

  TEST_CASE("continuations: what is longer than the model's positions loses its beginning") {
    const Model model = random_model(16);
    const Asked long_context{ids(40, 1), ids(4, 2)};
    // 16 inputs predict 16 tokens: the last 13 of the context stand before 4 tokens of which the last is no input
    CHECK(score(model, {long_context})[0].log_likelihood ==
          doctest::Approx(log_likelihood(model, long_context, 13)).epsilon(1e-5));
    const Asked whole{ids(3, 3), ids(16, 4)};
    CHECK(score(model, {whole})[0].log_likelihood == doctest::Approx(log_likelihood(model, whole, 1)).epsilon(1e-5));
    CHECK_THROWS_AS(score(model, {{ids(3, 3), ids(17, 4)}}), UserError);
  }

  TEST_CASE("continuations: tokens outside the vocabulary are refused; nothing asked, nothing answered") {
    const Model model = random_model();
    CHECK_THROWS_AS(score(model, {{{model.config.vocab_size}, {1}}}), UserError);
    CHECK_THROWS_AS(score(model, {{{1}, {-1}}}), UserError);
    CHECK(score(model, {}).empty());
  }
}
