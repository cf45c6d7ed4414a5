#include "src/model/generate.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>

#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;

namespace {

constexpr int64_t kNoEos = -1;

Model random_model(int64_t max_position = 128) {
  ModelConfig config = preset("test", "t");
  config.max_position_embeddings = max_position;
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 11);
  scale_master(*model.arena, 2.0);  // logits far enough apart that rounding decides nothing
  return model;
}

/// The same continuation without a cache: read everything again for each token.
std::vector<int64_t> generate_again(const Model& model, std::vector<int64_t> text, int64_t count, int64_t context) {
  const size_t begin = text.size();
  for (int64_t i = 0; i < count; ++i) {
    const int64_t length = std::min<int64_t>(std::ssize(text), context);
    const at::Tensor token_BT = at::tensor(std::vector<int64_t>(text.end() - length, text.end())).unsqueeze(0);
    const at::Tensor logits = decoder_logits(
        model, {.token_BT = token_BT, .position_BT = at::arange(length).unsqueeze(0), .document_BT = {}});
    text.push_back(logits.select(0, length - 1).argmax().item<int64_t>());
  }
  return {text.begin() + static_cast<std::ptrdiff_t>(begin), text.end()};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("generate: greedy text equals reading everything again for each token") {
    const Model model = random_model();
    const std::vector<int64_t> prompt{5, 17, 250, 3};
    const std::vector<int64_t> text = generate(model, prompt, kNoEos, {.max_new_tokens = 40});
    CHECK(text == generate_again(model, prompt, 40, 1000));
    CHECK(std::set(text.begin(), text.end()).size() > 3);  // not one token for ever
  }

  TEST_CASE("generate: stops at EOS and tells each token as it comes") {
    const Model model = random_model();
    const std::vector<int64_t> text = generate(model, {5, 17}, kNoEos, {.max_new_tokens = 8});
    std::vector<int64_t> told;
    const std::vector<int64_t> stopped = generate(model, {5, 17}, text[3], {.max_new_tokens = 8}, [&](int64_t id) {
      told.push_back(id);
      return true;
    });
    CHECK(stopped == told);
    CHECK(stopped.back() == text[3]);
    CHECK(stopped.size() <= 4);
    CHECK(generate(model, {5}, kNoEos, {.max_new_tokens = 0}).empty());
    int asked = 0;
    CHECK(generate(model, {5, 17}, kNoEos, {.max_new_tokens = 8}, [&](int64_t) { return ++asked < 3; }) ==
          std::vector<int64_t>(text.begin(), text.begin() + 3));
  }

  TEST_CASE("generate: goes on beyond the positions the model knows, from the newest half") {
    const Model model = random_model(16);
    std::vector<int64_t> prompt{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    const std::vector<int64_t> text = generate(model, prompt, kNoEos, {.max_new_tokens = 30});
    CHECK(text.size() == 30);
    const std::vector<int64_t> known = generate_again(model, prompt, 7, 16);  // tokens 11..17 still see everything
    CHECK(std::equal(known.begin(), known.end(), text.begin()));
    prompt.insert(prompt.end(), text.begin(),
                  text.begin() + 7);  // 17 tokens: the cache of 16 is full, so the newest 8 are read again
    CHECK(generate_again(model, {prompt.end() - 8, prompt.end()}, 1, 8)[0] == text[7]);
    CHECK(generate(model, std::vector<int64_t>(100, 7), kNoEos, {.max_new_tokens = 3}).size() == 3);
  }

  TEST_CASE("generate: samples by the seed, and follows the distribution") {
    const Model model = random_model();
    const GenerateOptions warm{.max_new_tokens = 20, .sampling_temperature = 1.0, .seed = 4};
    CHECK(generate(model, {5, 17}, kNoEos, warm) == generate(model, {5, 17}, kNoEos, warm));
    GenerateOptions other = warm;
    other.seed = 5;
    CHECK(generate(model, {5, 17}, kNoEos, warm) != generate(model, {5, 17}, kNoEos, other));
    GenerateOptions cold = warm;
    cold.sampling_temperature = 1e-4;  // all mass on the best
    CHECK(generate(model, {5, 17}, kNoEos, cold) == generate(model, {5, 17}, kNoEos, {.max_new_tokens = 20}));

    const at::Tensor probability =
        decoder_logits(model, {.token_BT = at::tensor(std::vector<int64_t>{5, 17}).unsqueeze(0),
                               .position_BT = at::arange(2).unsqueeze(0),
                               .document_BT = {}})
            .select(0, 1)
            .softmax(0);
    const int64_t best = probability.argmax().item<int64_t>();
    constexpr int kDraws = 400;
    int hits = 0;
    for (int seed = 0; seed < kDraws; ++seed)
      hits +=
          generate(model, {5, 17}, kNoEos,
                   {.max_new_tokens = 1, .sampling_temperature = 1.0, .seed = static_cast<uint64_t>(seed)})[0] == best;
    const double p = probability[best].item<double>();
    CHECK(std::abs(hits - p * kDraws) <= 5 * std::sqrt(p * (1 - p) * kDraws) + 1);
  }

  TEST_CASE("generate: nucleus sampling draws from the most probable tokens alone, by their own probabilities") {
    const Model model = random_model();
    const at::Tensor probability =
        decoder_logits(model, {.token_BT = at::tensor(std::vector<int64_t>{5, 17}).unsqueeze(0),
                               .position_BT = at::arange(2).unsqueeze(0),
                               .document_BT = {}})
            .select(0, 1)
            .softmax(0);
    const auto [sorted, order] = probability.sort(/*dim=*/0, /*descending=*/true);
    // A share that three tokens reach and two do not.
    const double two = sorted.narrow(0, 0, 2).sum().item<double>(), three = two + sorted[2].item<double>();
    const double top_p = (two + three) / 2;
    std::map<int64_t, int> drawn;
    constexpr int kDraws = 300;
    for (int seed = 0; seed < kDraws; ++seed)
      ++drawn[generate(
          model, {5, 17}, kNoEos,
          {.max_new_tokens = 1, .sampling_temperature = 1.0, .top_p = top_p, .seed = static_cast<uint64_t>(seed)})[0]];
    CHECK(drawn.size() == 3);
    for (int64_t rank = 0; rank < 3; ++rank) {
      const double p = sorted[rank].item<double>() / three;
      const int hits = drawn[order[rank].item<int64_t>()];
      CHECK(hits > 0);
      CHECK(std::abs(hits - p * kDraws) <= 5 * std::sqrt(p * (1 - p) * kDraws) + 1);
    }
    const GenerateOptions narrow{.max_new_tokens = 20, .sampling_temperature = 2.0, .top_p = 1e-9};  // the best alone
    CHECK(generate(model, {5, 17}, kNoEos, narrow) == generate(model, {5, 17}, kNoEos, {.max_new_tokens = 20}));
  }

  TEST_CASE("generate: an empty prompt starts a document; wrong options and tokens are the user's") {
    const Model model = random_model();
    CHECK(generate(model, {}, 2, {.max_new_tokens = 3}) == generate(model, {2}, 2, {.max_new_tokens = 3}));
    CHECK_THROWS_AS(generate(model, {300}, 2, {}), UserError);
    CHECK_THROWS_AS(generate(model, {-1}, 2, {}), UserError);
    CHECK_THROWS_AS(generate(model, {1}, 2, {.max_new_tokens = -1}), UserError);
    CHECK_THROWS_AS(generate(model, {1}, 2, {.sampling_temperature = -0.5}), UserError);
    CHECK_THROWS_AS(generate(model, {1}, 2, {.top_p = 0}), UserError);
    CHECK_THROWS_AS(generate(model, {1}, 2, {.top_p = 1.5}), UserError);
  }
}
