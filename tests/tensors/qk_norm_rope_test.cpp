#include "src/tensors/kernels/qk_norm_rope.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

constexpr double kEps = 1e-6;
constexpr double kTheta = 500000.0;

struct Sizes {
  int64_t num_heads, num_kv_heads, head_size;
  int64_t packed() const { return (num_heads + 2 * num_kv_heads) * head_size; }
};

/// The textbook composition in the dtype of its input; angles always in double.
at::Tensor composition(const Sizes& sizes, const at::Tensor& position_N, const std::vector<at::Tensor>& in) {
  const int64_t half = sizes.head_size / 2, num_tokens = in[0].size(0);
  const at::Tensor frequency =
      at::pow(kTheta, at::arange(half, at::kDouble) * (-2.0 / static_cast<double>(sizes.head_size)));
  const at::Tensor angle = position_N.to(at::kDouble).unsqueeze(1) * frequency;
  const at::Tensor cos = angle.cos().to(in[0].scalar_type()).unsqueeze(1),
                   sin = angle.sin().to(in[0].scalar_type()).unsqueeze(1);
  const auto rotate = [&](at::Tensor x, const at::Tensor& weight) {  // [N, heads, K]
    if (weight.defined()) x = x * (x.square().mean(-1, true) + kEps).rsqrt() * weight;
    const at::Tensor left = x.narrow(2, 0, half), right = x.narrow(2, half, half);
    return at::cat({left * cos - right * sin, right * cos + left * sin}, 2);
  };
  const at::Tensor heads = in[0].view({num_tokens, -1, sizes.head_size});
  const at::Tensor q_weight = in.size() > 1 ? in[1] : at::Tensor(), k_weight = in.size() > 1 ? in[2] : at::Tensor();
  return at::cat({rotate(heads.narrow(1, 0, sizes.num_heads), q_weight),
                  rotate(heads.narrow(1, sizes.num_heads, sizes.num_kv_heads), k_weight),
                  heads.narrow(1, sizes.num_heads + sizes.num_kv_heads, sizes.num_kv_heads)},
                 1)
      .view({num_tokens, -1});
}

at::Tensor packed(const AttentionInput& out) { return at::cat({out.q_NX, out.k_NX, out.v_NX}, 1); }

at::Tensor ours(const Sizes& sizes, const at::Tensor& position_N, const std::vector<at::Tensor>& in) {
  const at::Tensor q_weight = in.size() > 1 ? in[1] : at::Tensor(), k_weight = in.size() > 1 ? in[2] : at::Tensor();
  return packed(qk_norm_rope(in[0], q_weight, {}, k_weight, {}, position_N.to(in[0].device()), sizes.num_heads,
                             sizes.num_kv_heads, kEps, rope_frequencies(kTheta, sizes.head_size)));
}

void check_output_and_gradients(const OpPlacement& on) {
  for (const Sizes& sizes : {Sizes{4, 2, 32}, Sizes{3, 1, 64}, Sizes{2, 2, 128}, Sizes{2, 1, 2}, Sizes{3, 3, 18}})
    for (const int64_t num_tokens : {1, 70}) {
      CAPTURE(sizes.head_size);
      CAPTURE(num_tokens);
      const at::Tensor position = at::arange(num_tokens, at::kLong) * 3 % 50;
      const auto mine = [&](const std::vector<at::Tensor>& in) { return ours(sizes, position, in); };
      const auto theirs = [&](const std::vector<at::Tensor>& in) { return composition(sizes, position, in); };
      const at::Tensor qkv = randn({num_tokens, sizes.packed()}, 1), out_grad = randn({num_tokens, sizes.packed()}, 2);
      check_against_composition(on, mine, theirs, {qkv}, out_grad);
      check_against_composition(on, mine, theirs,
                                {qkv, 1 + 0.2 * randn({sizes.head_size}, 3), 1 + 0.2 * randn({sizes.head_size}, 4)},
                                out_grad);
    }
}

}  // namespace

TEST_SUITE("grad") {
  TEST_CASE("qk_norm_rope: output and gradients, with and without norm, head sizes fixed and free") {
    on_each(host_placements(), check_output_and_gradients);
  }

  TEST_CASE("qk_norm_rope: weight gradients are added to the arena's views") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const Sizes sizes{4, 2, 32};
      const at::Tensor position = at::arange(90, at::kLong),
                       qkv = randn({90, sizes.packed()}, 1).to(on.compute).requires_grad_(),
                       out_grad = randn({90, sizes.packed()}, 2).to(on.compute);
      const at::Tensor q_weight = randn({32}, 3).requires_grad_(), k_weight = randn({32}, 4).requires_grad_();
      const at::Tensor q_buffer = at::full({32}, 1.0f), k_buffer = at::full({32}, -1.0f),
                       frequencies = rope_frequencies(kTheta, 32);
      packed(qk_norm_rope(qkv, q_weight, q_buffer, k_weight, k_buffer, position, 4, 2, kEps, frequencies))
          .backward(out_grad);
      CHECK_FALSE(q_weight.grad().defined());
      CHECK_FALSE(k_weight.grad().defined());
      packed(qk_norm_rope(qkv, q_weight, {}, k_weight, {}, position, 4, 2, kEps, frequencies)).backward(out_grad);
      CHECK(max_error(q_buffer - 1.0, q_weight.grad()) < 1e-5);
      CHECK(max_error(k_buffer + 1.0, k_weight.grad()) < 1e-5);
    });
  }

  TEST_CASE("qk_norm_rope: only one of the outputs used") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const Sizes sizes{2, 1, 8};
      const at::Tensor position = at::arange(5, at::kLong), given = randn({5, sizes.packed()}, 1).to(on.compute),
                       grad = randn({5, 8}, 2).to(on.compute);
      const auto values_alone = [&] {
        const at::Tensor qkv = given.clone().requires_grad_();
        qk_norm_rope(qkv, {}, {}, {}, {}, position, 2, 1, kEps, rope_frequencies(kTheta, 8)).v_NX.backward(grad);
        return qkv.grad();
      }();
      CHECK(values_alone.narrow(1, 0, 24).eq(0).all().item<bool>());
      CHECK(at::equal(values_alone.narrow(1, 24, 8), grad));
    });
  }
}

TEST_SUITE("parity") {
  TEST_CASE("qk_norm_rope: the quick path agrees with the reference on strided rows and keeps inside its outputs") {
    for (const int64_t head_size : {2, 18, 32, 64}) {
      CAPTURE(head_size);
      const int64_t num_tokens = 70, num_heads = 3, num_kv_heads = 1, width = 5 * head_size, size = num_tokens * width;
      const at::Tensor qkv = strided_copy(randn({num_tokens, width}, 1), 3, 1),
                       out_grad = strided_copy(randn({num_tokens, width}, 2), 5, 1);
      const at::Tensor q_weight = randn({head_size}, 3), k_weight = randn({head_size}, 4),
                       position = at::arange(num_tokens, at::kLong) * 7;
      const at::Tensor frequencies = rope_frequencies(kTheta, head_size);
      const auto table =
          rope_table({frequencies.const_data_ptr<double>(), static_cast<size_t>(head_size / 2)}, 7 * num_tokens);
      Guarded out(size), out2(size);
      QkNormRopeParams<float> forward{.qkv = qkv.const_data_ptr<float>(),
                                      .q_weight = q_weight.const_data_ptr<float>(),
                                      .k_weight = k_weight.const_data_ptr<float>(),
                                      .position = position.const_data_ptr<int64_t>(),
                                      .cos = table->cos.data(),
                                      .sin = table->sin.data(),
                                      .out = out.data(),
                                      .num_tokens = num_tokens,
                                      .num_heads = num_heads,
                                      .num_kv_heads = num_kv_heads,
                                      .head_size = head_size,
                                      .qkv_row_stride = qkv.stride(0),
                                      .eps = 1e-6f};
      qk_norm_rope_cpu(forward);
      forward.out = out2.data();
      qk_norm_rope_reference(forward);
      CHECK(out.intact());
      CHECK(max_error(out.tensor({size}), out2.tensor({size})) < 1e-5);

      Guarded qkv_grad(size), q_grad(head_size), k_grad(head_size), qkv_grad2(size), q_grad2(head_size),
          k_grad2(head_size);
      QkNormRopeBackwardParams<float> backward{
          .qkv = qkv.const_data_ptr<float>(),
          .q_weight = q_weight.const_data_ptr<float>(),
          .k_weight = k_weight.const_data_ptr<float>(),
          .position = position.const_data_ptr<int64_t>(),
          .cos = table->cos.data(),
          .sin = table->sin.data(),
          .q_grad = out_grad.const_data_ptr<float>(),
          .k_grad = out_grad.const_data_ptr<float>() + num_heads * head_size,
          .v_grad = out_grad.const_data_ptr<float>() + (num_heads + num_kv_heads) * head_size,
          .qkv_grad = qkv_grad.data(),
          .q_weight_grad = q_grad.data(),
          .k_weight_grad = k_grad.data(),
          .accumulate_weight_grad = false,
          .num_tokens = num_tokens,
          .num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .head_size = head_size,
          .qkv_row_stride = qkv.stride(0),
          .q_grad_row_stride = out_grad.stride(0),
          .k_grad_row_stride = out_grad.stride(0),
          .v_grad_row_stride = out_grad.stride(0),
          .eps = 1e-6f};
      qk_norm_rope_backward_cpu(backward);
      backward.qkv_grad = qkv_grad2.data();
      backward.q_weight_grad = q_grad2.data();
      backward.k_weight_grad = k_grad2.data();
      qk_norm_rope_backward_reference(backward);
      CHECK((qkv_grad.intact() && q_grad.intact() && k_grad.intact()));
      CHECK(max_error(qkv_grad.tensor({size}), qkv_grad2.tensor({size})) <
            1e-4);  // a head of two numbers may have a large rstd
      CHECK(max_error(q_grad.tensor({head_size}), q_grad2.tensor({head_size})) < 1e-4);
      CHECK(max_error(k_grad.tensor({head_size}), k_grad2.tensor({head_size})) < 1e-4);
    }
  }
}

TEST_SUITE("unit") {
  TEST_CASE(
      "qk_norm_rope: position 0 without norm is the identity; values pass through; negative positions and odd heads "
      "are refused") {
    const at::Tensor qkv = randn({5, 4 * 8}, 1);
    const auto run = [&](const at::Tensor& position) {
      return packed(qk_norm_rope(qkv, {}, {}, {}, {}, position, 2, 1, kEps, rope_frequencies(kTheta, 8)));
    };
    CHECK(at::equal(run(at::zeros({5}, at::kLong)), qkv));
    CHECK(at::equal(run(at::arange(5, at::kLong)).narrow(1, 24, 8), qkv.narrow(1, 24, 8)));
    CHECK_THROWS_AS(run(at::full({5}, -1, at::kLong)), InternalError);
    const auto heads_of = [&](int64_t head_size, const at::Tensor& frequencies) {
      return qk_norm_rope(randn({5, 4 * head_size}, 1), {}, {}, {}, {}, at::arange(5, at::kLong), 2, 1, kEps,
                          frequencies);
    };
    CHECK_NOTHROW(heads_of(8, rope_frequencies(kTheta, 8)));
    CHECK_THROWS_AS(heads_of(7, rope_frequencies(kTheta, 8)), InternalError);
    CHECK_THROWS_AS(heads_of(8, rope_frequencies(kTheta, 6)), InternalError);
    CHECK_THROWS_AS(heads_of(8, rope_frequencies(kTheta, 8).to(at::kFloat)), InternalError);
    CHECK_THROWS_AS(rope_frequencies(kTheta, 7), InternalError);
    CHECK_NOTHROW(heads_of(1024, rope_frequencies(kTheta, 1024)));
    const EmulatedFloat32 emulated;
    CHECK_THROWS_WITH_AS(heads_of(1024, rope_frequencies(kTheta, 1024)),
                         doctest::Contains("head size: 1024, kernels go up to 512"), InternalError);
  }

  TEST_CASE("qk_norm_rope: kernels leave values where they are, the CPU's loop puts all three into one row") {
    on_each(host_placements(), [](const OpPlacement& on) {
      const at::Tensor qkv = randn({5, 4 * 8}, 1).to(on.compute);
      const AttentionInput out =
          qk_norm_rope(qkv, {}, {}, {}, {}, at::arange(5, at::kLong), 2, 1, kEps, rope_frequencies(kTheta, 8));
      CHECK(at::equal(out.v_NX, qkv.narrow(1, 24, 8)));
      CHECK(out.v_NX.is_alias_of(qkv) == on.is_emulated());
      CHECK(out.v_NX.is_alias_of(out.q_NX) == !on.is_emulated());
      CHECK(out.q_NX.sizes() == at::IntArrayRef({5, 16}));
      CHECK(out.k_NX.sizes() == at::IntArrayRef({5, 8}));
    });
  }

  TEST_CASE("rope_table: grows when asked for more and keeps its values") {
    const std::vector<double> frequencies{1.0, 0.1, 0.001}, others{1.0, 0.1, 0.002};
    const auto small = rope_table(frequencies, 3);
    const auto large = rope_table(frequencies, 5000);
    CHECK(large->num_positions > 5000);
    CHECK(std::equal(small->cos.begin(), small->cos.end(), large->cos.begin()));
    CHECK(rope_table(frequencies, 4) == large);
    CHECK(rope_table(others, 4)->sin[4 * 3 + 2] == doctest::Approx(std::sin(0.008)));
    CHECK(large->sin[4 * 3 + 2] == doctest::Approx(std::sin(0.004)));
  }
}

TEST_SUITE("golden") {
  TEST_CASE("qk_norm_rope: rotations, frequencies and QK norm of rope_base.json") {
    const auto golden = nlohmann::json::parse(std::ifstream(COPPICE_SOURCE_DIR "/tests/golden/rope_base.json"));
    const double tolerance = golden.at("tolerance").at("float32").get<double>();
    const auto vector = [](const nlohmann::json& values) {
      return at::tensor(values.get<std::vector<double>>()).to(at::kFloat);
    };
    const at::Tensor q = vector(golden.at("q")),
                     qkv = at::cat({q, q, q}).view({1, -1});  // one query, one key, one value head of 8
    for (const auto& row : golden.at("rotated_q")) {
      const at::Tensor position = at::full({1}, row.at("position").get<int64_t>(), at::kLong);
      const at::Tensor out = packed(qk_norm_rope(qkv, {}, {}, {}, {}, position, 1, 1, kEps,
                                                 rope_frequencies(row.at("base").get<double>(), 8)))
                                 .view({3, 8});
      CHECK(max_error(out[0], vector(row.at("out"))) <= 2 * tolerance);  // entries up to 2
      CHECK(at::equal(out[0], out[1]));
    }
    for (const auto& row : golden.at("inverse_frequencies")) {
      const at::Tensor got = rope_frequencies(row.at("base").get<double>(), row.at("dim").get<int64_t>());
      for (size_t i = 0; i < row.at("index").size(); ++i)
        CHECK(got[row.at("index")[i].get<int64_t>()].item<double>() ==
              doctest::Approx(row.at("inverse_frequency")[i].get<double>()).epsilon(1e-12));
    }
    const at::Tensor scale = vector(golden.at("qk_scale")),
                     position = at::full({1}, golden.at("position").get<int64_t>(), at::kLong);
    const at::Tensor normed =
        packed(qk_norm_rope(qkv, scale, {}, scale, {}, position, 1, 1, golden.at("qk_norm_eps").get<double>(),
                            rope_frequencies(500000.0, 8)))
            .view({3, 8});
    CHECK(max_error(normed[0], vector(golden.at("norm_then_rope"))) <= 2 * tolerance);
    CHECK(max_error(normed[0], vector(golden.at("rope_then_norm"))) > 1e-3);
    for (const auto& row : golden.at("dots")) {
      const at::Tensor k = vector(golden.at("k")), pair = at::cat({q, k, k}).view({1, -1});
      const auto at_position = [&](int64_t position) {
        return packed(qk_norm_rope(pair, {}, {}, {}, {}, at::full({1}, position, at::kLong), 1, 1, kEps,
                                   rope_frequencies(row.at("base").get<double>(), 8)))
            .view({3, 8});
      };
      const double dot = at_position(1005)[0].dot(at_position(1002)[1]).item<double>();
      CHECK(dot == doctest::Approx(row.at("dot").get<double>()).epsilon(5e-6));
    }
  }
}

TEST_SUITE("gpu") {
  TEST_CASE("qk_norm_rope: output and gradients, with and without norm, head sizes fixed and free: on a device") {
    on_each(device_placements(), check_output_and_gradients);
  }
}
