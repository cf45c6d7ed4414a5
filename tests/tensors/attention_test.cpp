#include "src/tensors/attention.h"

#include <cmath>

#include "src/base/errors.h"
#include "src/tensors/kernels/attention.h"
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

at::Tensor packed_attention(const at::Tensor& qkv, const Sizes& s, const at::Tensor& document_BT = {}) {
  return causal_attention(split_heads(qkv, s.num_heads, s.num_kv_heads), s.batch, s.num_heads, s.num_kv_heads,
                          document_BT);
}

void check_attention(const OpPlacement& on, const Sizes& s, const at::Tensor& document_BT, double scale = 1.0,
                     double floor = 1e-6) {
  CAPTURE(s.length);
  CAPTURE(s.num_heads);
  CAPTURE(s.head_size);
  const at::Tensor qkv = scale * randn({s.tokens(), s.packed()}, 1),
                   out_grad = randn({s.tokens(), s.num_heads * s.head_size}, 2);
  // Backward reads the output as it was stored: its rounding is in every gradient, whatever that one's size.
  const double own_floor = on.compute == at::kBFloat16 ? 0x1p-8 : floor;
  check_against_composition(
      on,
      [&](const std::vector<at::Tensor>& in) {
        return packed_attention(in[0], s, document_BT.defined() ? document_BT.to(on.device) : document_BT);
      },
      [&](const std::vector<at::Tensor>& in) { return composition(s, document_BT, in[0]); }, {qkv}, out_grad,
      own_floor);
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

void check_lengths(const OpPlacement& on) {
  for (const Sizes& s : {Sizes{1, 1, 1, 1, 8}, Sizes{2, 5, 4, 2, 32}, Sizes{1, 31, 3, 1, 64}, Sizes{2, 33, 2, 2, 16},
                         Sizes{2, 64, 4, 4, 32}, Sizes{3, 130, 4, 2, 32}, Sizes{1, 257, 6, 2, 64},
                         Sizes{1, 100, 2, 1, 128}, Sizes{1, 70, 3, 3, 20}})
    check_attention(on, s, {});
}

void check_large_scores(const OpPlacement& on) {
  // Scores reach 128, and probabilities come from their distance to the log-sum-exp: the rounding of both in float32
  // alone is 2^-23 * 128 of each.
  check_attention(on, {1, 90, 2, 1, 32}, {}, 4.0, 0x1p-23 * 128);
}

void check_document_mask(const OpPlacement& on) {
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
    const at::Tensor out = packed_attention(qkv, s);
    CHECK(max_error(out[0].view({2, 32})[0], qkv[0].narrow(0, 96, 32)) < 1e-6);
    at::Tensor changed = qkv.clone();
    changed.slice(0, 20).add_(1.0);
    CHECK(at::equal(packed_attention(changed, s).slice(0, 0, 20), out.slice(0, 0, 20)));
  }

  TEST_CASE("causal_attention: documents side by side equal documents alone") {
    const Sizes s{1, 90, 4, 2, 32};
    const at::Tensor qkv = randn({90, s.packed()}, 3), packed = packed_attention(qkv, s, documents(s, {37, 1000}));
    CHECK(max_error(packed.slice(0, 0, 37), packed_attention(qkv.slice(0, 0, 37), s)) < 1e-6);
    CHECK(max_error(packed.slice(0, 37), packed_attention(qkv.slice(0, 37), s)) < 1e-6);
  }

  TEST_CASE("causal_attention: one document is no mask; equal on every run; wrong sizes are refused") {
    const Sizes s{2, 70, 4, 2, 32};
    const at::Tensor qkv = randn({140, s.packed()}, 4).requires_grad_(), out_grad = randn({140, 128}, 5);
    const at::Tensor out = packed_attention(qkv, s);
    CHECK(max_error(out, packed_attention(qkv, s, at::zeros({2, 70}, at::kInt))) < 1e-6);
    at::Tensor first;
    for (int run = 0; run < 5; ++run) {
      qkv.mutable_grad() = at::Tensor();
      packed_attention(qkv, s).backward(out_grad);
      if (run == 0) first = qkv.grad();
      CHECK(at::equal(first, qkv.grad()));
    }
    const AttentionInput in = split_heads(qkv, 4, 2);
    CHECK_THROWS_AS(causal_attention(in, 3, 4, 2, {}), InternalError);
    CHECK_THROWS_AS(causal_attention(in, 2, 4, 3, {}), InternalError);
    CHECK_THROWS_AS(causal_attention(in, 2, 4, 2, at::zeros({2, 69}, at::kInt)), InternalError);
    const at::Tensor document_BT = at::zeros({2, 70}, at::kInt);
    CHECK_THROWS_WITH(causal_attention(in, 2, 4, 2, document_BT.to(at::kMeta)),
                      doctest::Contains("document_BT is on meta"));
    CHECK_THROWS_WITH_AS(causal_attention(in, 2, 4, 2, document_BT.to(at::kLong)),
                         doctest::Contains("document_BT: got int64, expected int32"), InternalError);
    CHECK_THROWS_WITH(
        causal_attention(in, 2, 4, 2, document_BT, {.bound_S = at::zeros({3}, at::kInt).to(at::kMeta), .longest = 70}),
        doctest::Contains("bounds.bound_S is on meta"));
    CHECK_THROWS_WITH_AS(causal_attention({in.q_NX, in.k_NX, in.v_NX.to(at::kBFloat16)}, 2, 4, 2, {}),
                         doctest::Contains("v_NX: got bfloat16, expected float32"), InternalError);
    CHECK_THROWS_WITH_AS(causal_attention({in.q_NX, in.q_NX, in.v_NX}, 2, 4, 2, {}),
                         doctest::Contains("k_NX: got (140, 128), expected (140, 64)"), InternalError);
    CHECK_THROWS_AS(split_heads(qkv, 4, 3), InternalError);
  }

  TEST_CASE("attention_backend: who computes, by device, element type, size of a head and mode") {
    const Placement cuda{.device = at::Device(at::kCUDA, 0), .compute = at::kBFloat16};
    CHECK(attention_backend({}, 64) == "cpu");
    CHECK(attention_backend({.device = at::kCPU, .compute = at::kBFloat16}, 64) == "cpu");
    CHECK(attention_backend({.device = cuda.device, .compute = at::kFloat}, 64) == "plain");
    CHECK(attention_backend(cuda, 64) == "flash");
    CHECK(attention_backend(cuda, 20) == "plain");
    CHECK(attention_backend(cuda, 264) == "plain");
    set_attention_mode(AttentionMode::fast);
    CHECK(attention_backend(cuda, 64) == "cudnn");
    CHECK(attention_backend(cuda, 64, /*documents=*/true) == "flash");  // torch's cuDNN has no right backward of them
    CHECK(attention_text(cuda, 64, /*documents=*/true) == "flash");
    CHECK(attention_backend({}, 64) == "cpu");
    set_attention_mode(AttentionMode::repeatable);
    CHECK(attention_backend(cuda, 64) == "flash");
  }
}

TEST_SUITE("parity") {
  TEST_CASE("causal_attention: all scores in memory give what the CPU's kernel gives, forward and backward") {
    const AttentionBackend &cpu = kAttentionBackends[0], &plain = kAttentionBackends[1];
    REQUIRE(cpu.name == "cpu");
    REQUIRE(plain.name == "plain");
    for (const Sizes& s : {Sizes{2, 40, 4, 2, 32}, Sizes{1, 70, 3, 3, 20}})
      for (const at::Tensor& document_BT : {at::Tensor(), documents(s, {7, 1, 20, 1000})}) {
        const AttentionInput in = split_heads(randn({s.tokens(), s.packed()}, 1), s.num_heads, s.num_kv_heads);
        const AttentionShape shape{.batch = s.batch, .num_heads = s.num_heads, .num_kv_heads = s.num_kv_heads};
        const at::Tensor out_grad = randn({s.tokens(), s.num_heads * s.head_size}, 2);
        const AttentionOutput ours = plain.forward(in, shape, {document_BT}),
                              theirs = cpu.forward(in, shape, {document_BT});
        CHECK(max_error(ours.out_NX, theirs.out_NX) < 2e-6);
        const AttentionInput our_grads = plain.backward(in, shape, {document_BT}, ours, out_grad),
                             their_grads = cpu.backward(in, shape, {document_BT}, theirs, out_grad);
        CHECK(max_error(our_grads.q_NX, their_grads.q_NX) < 1e-5);
        CHECK(max_error(our_grads.k_NX, their_grads.k_NX) < 1e-5);
        CHECK(max_error(our_grads.v_NX, their_grads.v_NX) < 1e-5);
      }
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("causal_attention: output and packed gradient on a device") {
    struct Restored {
      ~Restored() { set_attention_mode(AttentionMode::repeatable); }
    } restored;
    for (const AttentionMode mode : {AttentionMode::repeatable, AttentionMode::fast}) {
      set_attention_mode(mode);
      on_each(device_placements(), [](const OpPlacement& on) {
        check_lengths(on);
        check_large_scores(on);
        check_document_mask(on);
      });
    }
  }
}
