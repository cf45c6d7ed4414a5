// Each fused operation, forward and backward, beside the ATen composition that eager PyTorch runs: swiglu and
// aten_swiglu, and so on. The check compares the two before the clock starts. gbs counts the bytes that the fused form
// must move in float32.
//   kernels_bench --tokens 2048 --width 128 --ffn 1024 --heads 4 --kv_heads 2 --head_size 32 --seq 256
#include <cmath>

#include "src/tensors/ops.h"
#include "tests/bench/bench.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

struct Case {
  std::string name;
  std::function<at::Tensor()> forward;
  std::vector<at::Tensor> inputs;  // leaves whose gradient is compared
  double bytes = 0, flops = 0;     // forward and backward together
};

/// Gradient of the inputs; the output gradient is fixed.
void run(const Case& one, const at::Tensor& output_grad) {
  for (const at::Tensor& input : one.inputs) input.mutable_grad() = at::Tensor();
  one.forward().backward(output_grad);
}

double relative_error(const at::Tensor& ours, const at::Tensor& theirs) {
  return ((ours - theirs).abs().max() / (theirs.abs().max() + 1e-20)).item<double>();
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight) {
  return at::rms_norm(x, {x.size(-1)}, weight, 1e-5);
}

}  // namespace

int main(int argc, char** argv) {
  const Flags flags(argc, argv,
                    {{"tokens", 2048},
                     {"width", 128},
                     {"ffn", 1024},
                     {"heads", 4},
                     {"kv_heads", 2},
                     {"head_size", 32},
                     {"seq", 256}});
  const int64_t N = flags["tokens"], D = flags["width"], F = flags["ffn"], H = flags["heads"], G = flags["kv_heads"],
                K = flags["head_size"], T = flags["seq"];
  const int64_t P = (H + 2 * G) * K, B = N / T;
  at::manual_seed(0);
  const Ceilings roof = measure_ceilings(flags);
  const auto leaf = [](at::IntArrayRef shape) { return (at::randn(shape) * 0.5).requires_grad_(); };

  const at::Tensor x = leaf({N, D}), delta = leaf({N, D}), gamma = leaf({D}), gate_up = leaf({N, 2 * F}),
                   ffn_mask = at::rand({F}).requires_grad_();
  const at::Tensor qkv = leaf({N, P}), q_weight = leaf({K}), k_weight = leaf({K}), weight = leaf({2 * F, D}),
                   down = leaf({D, F}), h = leaf({N, F});
  const at::Tensor position = at::arange(N, at::kLong) % T;
  const at::Tensor angle = position.to(at::kDouble).unsqueeze(1) *
                           at::pow(500000.0, at::arange(K / 2, at::kDouble) * (-2.0 / static_cast<double>(K)));
  const at::Tensor cos = at::cat({angle.cos(), angle.cos()}, 1).to(at::kFloat).unsqueeze(1),
                   sin = at::cat({angle.sin(), angle.sin()}, 1).to(at::kFloat).unsqueeze(1);
  const auto rotate = [&](const at::Tensor& heads) {
    return heads * cos + at::cat({heads.narrow(2, K / 2, K / 2).neg(), heads.narrow(2, 0, K / 2)}, 2) * sin;
  };
  const at::Tensor frequencies = rope_frequencies(500000.0, K);
  const double n = static_cast<double>(N), pairs = n * static_cast<double>(T + 1) / 2 * static_cast<double>(H * K);

  std::vector<std::pair<Case, Case>> duels;  // ours, ATen's
  const auto duel = [&](const std::string& name, std::vector<at::Tensor> inputs, double bytes, double flops,
                        std::function<at::Tensor()> ours, std::function<at::Tensor()> theirs) {
    duels.push_back(
        {{name, std::move(ours), inputs, bytes, flops}, {"aten_" + name, std::move(theirs), inputs, bytes, flops}});
  };
  duel(
      "swiglu", {gate_up}, 4 * n * F * (3 + 5), 0, [&] { return swiglu(gate_up, {}); },
      [&] { return at::silu(gate_up.narrow(1, 0, F)) * gate_up.narrow(1, F, F); });
  duel(
      "swiglu_mask", {gate_up, ffn_mask}, 4 * n * F * (3 + 5), 0, [&] { return swiglu(gate_up, ffn_mask); },
      [&] { return at::silu(gate_up.narrow(1, 0, F)) * (gate_up.narrow(1, F, F) * ffn_mask); });
  duel(
      "residual_rms_norm", {x, delta, gamma}, 4 * n * D * (4 + 4), 0,
      [&] {
        const ResidualNorm out = residual_rms_norm(x, delta, gamma, {}, 1e-5);
        return out.residual_ND + out.normed_ND;
      },
      [&] {
        const at::Tensor residual = x + delta;
        return residual + rms_norm(residual, gamma);
      });
  duel(
      "qk_norm_rope", {qkv, q_weight, k_weight}, 4 * n * P * (2 + 3), 0,
      [&] {
        const AttentionInput out = qk_norm_rope(qkv, q_weight, {}, k_weight, {}, position, H, G, 1e-5, frequencies);
        return at::cat({out.q_NX, out.k_NX, out.v_NX}, 1);
      },
      [&] {
        const at::Tensor heads = qkv.view({N, -1, K});
        return at::cat({rotate(rms_norm(heads.narrow(1, 0, H), q_weight)),
                        rotate(rms_norm(heads.narrow(1, H, G), k_weight)), heads.narrow(1, H + G, G)},
                       1)
            .view({N, P});
      });
  duel(
      "attention", {qkv}, 0, pairs * (4 + 10), [&] { return causal_attention(split_heads(qkv, H, G), B, H, G, {}); },
      [&] {
        const at::Tensor heads = qkv.view({B, T, -1, K}).transpose(1, 2);
        return at::scaled_dot_product_attention(heads.narrow(1, 0, H), heads.narrow(1, H, G), heads.narrow(1, H + G, G),
                                                {}, 0.0, true, std::nullopt, true)
            .transpose(1, 2)
            .reshape({N, H * K});
      });
  duel(
      "linear_gate_up", {x, weight}, 0, 3 * 2 * n * D * 2 * F, [&] { return coppice::linear(x, weight, at::Tensor()); },
      [&] { return at::linear(x, weight); });
  duel(
      "linear_down", {h, down}, 0, 3 * 2 * n * D * F, [&] { return coppice::linear(h, down, at::Tensor()); },
      [&] { return at::linear(h, down); });

  double worst = 0;
  std::vector<std::function<void()>> timed;
  std::vector<const Case*> cases;
  for (const auto& [ours, theirs] : duels) {
    const at::Tensor output_grad = at::randn_like(ours.forward());
    worst = std::max(worst, relative_error(ours.forward(), theirs.forward()));
    run(ours, output_grad);
    std::vector<at::Tensor> grads;
    for (const at::Tensor& input : ours.inputs) grads.push_back(input.grad());
    run(theirs, output_grad);
    for (size_t i = 0; i < grads.size(); ++i) worst = std::max(worst, relative_error(grads[i], ours.inputs[i].grad()));
    for (const Case* one : {&ours, &theirs}) {
      cases.push_back(one);
      timed.push_back([one, output_grad] { run(*one, output_grad); });
    }
  }
  emit_check(flags, worst, 1e-5);
  const std::vector<Readings> readings = measure(flags, timed);
  for (size_t i = 0; i < cases.size(); ++i) {
    Readings line = readings[i];
    const double median = line[0].second;
    if (cases[i]->bytes > 0)
      line.insert(line.end(), {{"gbs", cases[i]->bytes / median / 1e9},
                               {"share_of_copy", cases[i]->bytes / median / 1e9 / roof.copy_gbs}});
    if (cases[i]->flops > 0)
      line.insert(line.end(), {{"gflops", cases[i]->flops / median / 1e9},
                               {"share_of_gemm", cases[i]->flops / median / 1e9 / roof.gemm_gflops}});
    if (i % 2 == 0) line.emplace_back("ratio_to_aten", readings[i + 1][0].second / median);
    emit(cases[i]->name, flags, line);
  }
}
