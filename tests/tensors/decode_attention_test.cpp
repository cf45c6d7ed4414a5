#include "src/tensors/kernels/decode_attention.h"

#include <cmath>
#include <limits>

#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

struct Sizes {
  int64_t heads, kv_heads, head_size, tokens, capacity;
};

/// softmax(q k / sqrt K) v of one token.
at::Tensor composition(const Sizes& sizes, const at::Tensor& query_HK, const at::Tensor& key_GCK,
                       const at::Tensor& value_GCK, at::ScalarType type) {
  const auto part = [&](const at::Tensor& cache_GCK) {
    return cache_GCK.narrow(1, 0, sizes.tokens).repeat_interleave(sizes.heads / sizes.kv_heads, 0).to(type);
  };
  const at::Tensor scores_HT =
      at::einsum("hk,htk->ht", {query_HK.to(type), part(key_GCK)}) / std::sqrt(static_cast<double>(sizes.head_size));
  return at::einsum("ht,htk->hk", {scores_HT.softmax(1), part(value_GCK)});
}

at::Tensor ours(const Sizes& sizes, const at::Tensor& query_HK, const at::Tensor& key_GCK,
                const at::Tensor& value_GCK) {
  Guarded out(sizes.heads * sizes.head_size), scratch(decode_attention_scratch(sizes.heads, sizes.head_size));
  decode_attention_cpu({.query = query_HK.const_data_ptr<float>(),
                        .key = key_GCK.const_data_ptr<float>(),
                        .value = value_GCK.const_data_ptr<float>(),
                        .out = out.data(),
                        .scratch = scratch.data(),
                        .num_tokens = sizes.tokens,
                        .capacity = sizes.capacity,
                        .num_heads = sizes.heads,
                        .num_kv_heads = sizes.kv_heads,
                        .head_size = sizes.head_size});
  CHECK(out.intact());
  CHECK(scratch.intact());
  return out.tensor({sizes.heads, sizes.head_size});
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("decode_attention: groups of heads, one token to many pieces, and nothing behind the filled part") {
    for (const Sizes& sizes : {Sizes{1, 1, 2, 1, 1}, Sizes{3, 1, 64, 1, 8}, Sizes{4, 2, 32, 64, 64},
                               Sizes{4, 4, 18, 65, 70}, Sizes{9, 3, 64, 1000, 1024}}) {
      CAPTURE(sizes.tokens);
      const at::Tensor query = 3 * randn({sizes.heads, sizes.head_size}, 1),
                       key = randn({sizes.kv_heads, sizes.capacity, sizes.head_size}, 2),
                       value = randn({sizes.kv_heads, sizes.capacity, sizes.head_size}, 3);
      const int64_t unfilled = sizes.capacity - sizes.tokens;
      key.narrow(1, sizes.tokens, unfilled).fill_(std::numeric_limits<float>::quiet_NaN());
      value.narrow(1, sizes.tokens, unfilled).fill_(std::numeric_limits<float>::quiet_NaN());
      check_close(ours(sizes, query, key, value), composition(sizes, query, key, value, at::kFloat),
                  composition(sizes, query, key, value, at::kDouble));
    }
  }

  TEST_CASE("decode_attention: scores far apart and of either sign") {
    const Sizes sizes{1, 1, 2, 200, 200};
    const at::Tensor key = at::zeros({1, 200, 2}), value = randn({1, 200, 2}, 4);
    key[0].select(1, 0).copy_(at::linspace(-1000, 1000, 200));
    for (const float sign : {1.0f, -1.0f}) {
      const at::Tensor query = at::full({1, 2}, sign * 10.0f);
      CHECK(max_error(ours(sizes, query, key, value)[0], value[0][sign > 0 ? 199 : 0]) < 1e-6);
    }
  }
}
