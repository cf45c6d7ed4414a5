#include <cmath>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

struct Sizes {
  int64_t batch, length, num_heads, num_kv_heads, head_size;
  int64_t tokens() const { return batch * length; }
  int64_t packed() const { return (num_heads + 2 * num_kv_heads) * head_size; }
};

/// The full score square, masked, softmax, times values; in the dtype of its input.
at::Tensor composition(const Sizes& s, const at::Tensor& document_BT, const at::Tensor& qkv) {
  const at::Tensor heads = qkv.view({s.batch, s.length, -1, s.head_size}).transpose(1, 2);
  const at::Tensor q = heads.narrow(1, 0, s.num_heads);
  const auto repeated = [&](int64_t first) {
    return heads.narrow(1, first, s.num_kv_heads).repeat_interleave(s.num_heads / s.num_kv_heads, 1);
  };
  at::Tensor scores = q.matmul(repeated(s.num_heads).transpose(2, 3)) / std::sqrt(static_cast<double>(s.head_size));
  at::Tensor allowed = at::ones({s.length, s.length}, at::kBool).tril().unsqueeze(0);
  if (document_BT.defined()) allowed = allowed.logical_and(document_BT.unsqueeze(2) == document_BT.unsqueeze(1));
  scores = scores.masked_fill(allowed.logical_not().unsqueeze(1), -std::numeric_limits<double>::infinity());
  return scores.softmax(-1).matmul(repeated(s.num_heads + s.num_kv_heads)).transpose(1, 2).reshape({s.tokens(), -1});
}

void check_attention(const Placement& on, const Sizes& s, const at::Tensor& document_BT, double scale = 1.0,
                     double floor = 1e-6) {
  CAPTURE(s.length);
  CAPTURE(s.num_heads);
  CAPTURE(s.head_size);
  const at::Tensor qkv = scale * randn({s.tokens(), s.packed()}, 1),
                   out_grad = randn({s.tokens(), s.num_heads * s.head_size}, 2);
  check_against_composition(
      on,
      [&](const std::vector<at::Tensor>& in) {
        return causal_attention(in[0], s.batch, s.num_heads, s.num_kv_heads,
                                document_BT.defined() ? document_BT.to(on.device) : document_BT);
      },
      [&](const std::vector<at::Tensor>& in) { return composition(s, document_BT, in[0]); }, {qkv}, out_grad, floor);
}

/// Segment numbers of a window packed from documents of these lengths; the last one is cut or stretched to the end.
at::Tensor documents(const Sizes& s, const std::vector<int64_t>& lengths) {
  at::Tensor document = at::empty({s.batch, s.length}, at::kInt);
  for (int64_t b = 0; b < s.batch; ++b) {
    int64_t at_token = 0;
    for (size_t i = 0; i < lengths.size() && at_token < s.length; ++i) {
      const int64_t end = i + 1 == lengths.size() ? s.length : std::min(s.length, at_token + lengths[i] + b);
      document[b].slice(0, at_token, end).fill_(static_cast<int64_t>(i));
      at_token = end;
    }
  }
  return document;
}

void check_lengths(const Placement& on) {
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 8}, Sizes{2, 5, 4, 2, 32}, Sizes{1, 31, 3, 1, 64}, Sizes{2, 33, 2, 2, 16},
                         Sizes{2, 64, 4, 4, 32}, Sizes{3, 130, 4, 2, 32}, Sizes{1, 257, 6, 2, 64},
                         Sizes{1, 100, 2, 1, 128}, Sizes{1, 70, 3, 3, 20}})
    check_attention(on, s, {});
}

void check_large_scores(const Placement& on) {
  // Scores reach 128, and probabilities come from their distance to the log-sum-exp: the rounding of both in float32
  // alone is 2^-23 * 128 of each.
  check_attention(on, {1, 90, 2, 1, 32}, {}, 4.0, 0x1p-23 * 128);
}

void check_document_mask(const Placement& on) {
  for (const Sizes& s : {Sizes{2, 40, 4, 2, 32}, Sizes{2, 150, 2, 1, 64}, Sizes{1, 300, 2, 2, 32}}) {
    check_attention(on, s, documents(s, {7, 1, 20, 80, 1000}));
    check_attention(on, s, documents(s, {1000}));
    check_attention(on, s, documents(s, {64, 64, 1000}));
  }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("causal_attention: output and packed gradient for grouped, single and equal heads at ragged lengths") {
    on_each(host_placements(), check_lengths);
  }
  TEST_CASE("causal_attention: large scores neither overflow nor lose the softmax") {
    on_each(host_placements(), check_large_scores);
  }
  TEST_CASE("causal_attention: document mask") { on_each(host_placements(), check_document_mask); }
}

TEST_SUITE("unit") {
  TEST_CASE("causal_attention: the first token sees itself alone, later tokens change nothing before them") {
    const Sizes s{1, 50, 2, 1, 32};
    at::Tensor qkv = randn({50, s.packed()}, 1);
    const at::Tensor out = causal_attention(qkv, 1, 2, 1, {});
    CHECK(max_error(out[0].view({2, 32})[0], qkv[0].narrow(0, 96, 32)) < 1e-6);
    at::Tensor changed = qkv.clone();
    changed.slice(0, 20).add_(1.0);
    CHECK(at::equal(causal_attention(changed, 1, 2, 1, {}).slice(0, 0, 20), out.slice(0, 0, 20)));
  }

  TEST_CASE("causal_attention: documents side by side equal documents alone") {
    const Sizes s{1, 90, 4, 2, 32};
    const at::Tensor qkv = randn({90, s.packed()}, 3),
                     packed = causal_attention(qkv, 1, 4, 2, documents(s, {37, 1000}));
    CHECK(max_error(packed.slice(0, 0, 37), causal_attention(qkv.slice(0, 0, 37), 1, 4, 2, {})) < 1e-6);
    CHECK(max_error(packed.slice(0, 37), causal_attention(qkv.slice(0, 37), 1, 4, 2, {})) < 1e-6);
  }

  TEST_CASE("causal_attention: one document is no mask; equal on every run; wrong sizes are refused") {
    const Sizes s{2, 70, 4, 2, 32};
    const at::Tensor qkv = randn({140, s.packed()}, 4).requires_grad_(), out_grad = randn({140, 128}, 5);
    const at::Tensor out = causal_attention(qkv, 2, 4, 2, {});
    CHECK(max_error(out, causal_attention(qkv, 2, 4, 2, at::zeros({2, 70}, at::kInt))) < 1e-6);
    at::Tensor first;
    for (int run = 0; run < 5; ++run) {
      qkv.mutable_grad() = at::Tensor();
      causal_attention(qkv, 2, 4, 2, {}).backward(out_grad);
      if (run == 0) first = qkv.grad();
      CHECK(at::equal(first, qkv.grad()));
    }
    CHECK_THROWS_AS(causal_attention(qkv, 3, 4, 2, {}), InternalError);
    CHECK_THROWS_AS(causal_attention(qkv, 2, 4, 3, {}), InternalError);
    CHECK_THROWS_AS(causal_attention(qkv, 2, 4, 2, at::zeros({2, 69}, at::kInt)), InternalError);
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("causal_attention: output and packed gradient on a device") {
    on_each(device_placements(), [](const Placement& on) {
      check_lengths(on);
      check_large_scores(on);
      check_document_mask(on);
    });
  }
}
