#include "recipes/bench/hot_paths.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "recipes/bench/mask_step.h"
#include "recipes/bench/random_tensors.h"
#include "recipes/bench/trained.h"
#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "src/tensors/draws.h"
#include "src/tensors/ops.h"
#include "student/targets.h"
#include "teacher/live_signal.h"

namespace coppice {
namespace {

constexpr double kFloat = 4;
constexpr double kEps = 1e-5;
constexpr int64_t kIds = 64, kDraws = 16;  // of a token, that stored labels hold
constexpr double kTeacherWeight = 0.9;

/// The letters of ops.h.
struct Letters {
  int64_t N, T, D, H, G, K, F, V, L;
  explicit Letters(const BenchShape& shape)
      : N(shape.tokens()),
        T(shape.work.seq_len),
        D(shape.work.config.hidden_size),
        H(shape.work.config.num_attention_heads),
        G(shape.work.config.num_key_value_heads),
        K(shape.work.config.head_dim),
        F(shape.work.config.intermediate_size.front()),
        V(shape.work.config.vocab_size),
        L(shape.work.config.num_hidden_layers) {}
};

/// Bytes of a value of an activation.
double width_of(const BenchShape& shape) { return static_cast<double>(c10::elementSize(shape.on.compute)); }

double product(std::initializer_list<int64_t> factors) {
  double result = 1;
  for (const int64_t factor : factors) result *= static_cast<double>(factor);
  return result;
}

/// Forward, and back from its outputs with gradients that stay the same; what the first leaf gets.
std::function<at::Tensor()> both_ways(const std::vector<at::Tensor>& leaves,
                                      const std::function<std::vector<at::Tensor>()>& forward) {
  std::vector<at::Tensor> output_grads;
  for (const at::Tensor& output : forward()) output_grads.push_back(at::randn_like(output));
  return [=] {
    for (const at::Tensor& one : leaves) one.mutable_grad() = at::Tensor();
    torch::autograd::backward(forward(), output_grads);
    return leaves.front().grad();
  };
}

/// The kernels' times, one after the other.
std::function<double(const DeviceRow&)> predict(const KernelShape& shape, const std::vector<Kernel>& kernels) {
  return [=](const DeviceRow& device) {
    double seconds = 0;
    for (const Kernel kernel : kernels) seconds += predicted_seconds(cost_of(kernel), shape, device.rates);
    return seconds;
  };
}

PreparedPath norm(const BenchShape& shape) {
  const Letters s(shape);
  const at::Tensor x = leaf({s.N, s.D}, activations(shape.on)), delta = leaf({s.N, s.D}, activations(shape.on)),
                   weight = leaf({s.D}, floats(shape.on)), weight_grad = at::zeros({s.D}, floats(shape.on));
  return {.run = both_ways({x, delta, weight},
                           [=]() -> std::vector<at::Tensor> {
                             const ResidualNorm out = residual_rms_norm(x, delta, weight, weight_grad, kEps);
                             return {out.residual_ND, out.normed_ND};
                           }),
          .bytes = width_of(shape) * product({8, s.N, s.D}),
          .predicted_s =
              predict(kernel_shape(shape.work, s.N), {Kernel::residual_rms_norm, Kernel::residual_rms_norm_backward})};
}

/// x w^T forward, its gradient, and w's added in fp32 to what is there; `shape` says how many rows.
PreparedPath linear_of(const BenchShape& shape, int64_t in, int64_t out) {
  const int64_t rows = shape.tokens();
  const at::Tensor x = leaf({rows, in}, activations(shape.on)),
                   weight = (at::randn({out, in}, activations(shape.on)) / std::sqrt(static_cast<double>(in)))
                                .requires_grad_(),
                   weight_grad = at::zeros({out, in}, floats(shape.on));
  return {.run = both_ways({x, weight}, [=]() -> std::vector<at::Tensor> { return {linear(x, weight, weight_grad)}; }),
          .flops = product({6, rows, in, out}),
          .tokens = static_cast<double>(rows),
          .predicted_s = [=](const DeviceRow& device) {
            return linear_seconds(static_cast<double>(rows), static_cast<double>(in), static_cast<double>(out), device);
          }};
}
PreparedPath linear_qkv(const BenchShape& shape) {
  const Letters s(shape);
  return linear_of(shape, s.D, (s.H + 2 * s.G) * s.K);
}
PreparedPath linear_o(const BenchShape& shape) {
  const Letters s(shape);
  return linear_of(shape, s.H * s.K, s.D);
}
PreparedPath linear_gate_up(const BenchShape& shape) {
  const Letters s(shape);
  return linear_of(shape, s.D, 2 * s.F);
}
PreparedPath linear_down(const BenchShape& shape) {
  const Letters s(shape);
  return linear_of(shape, s.F, s.D);
}

PreparedPath qk_norm_and_rope(const BenchShape& shape) {
  const Letters s(shape);
  const at::Tensor qkv = leaf({s.N, (s.H + 2 * s.G) * s.K}, activations(shape.on)),
                   q_weight = leaf({s.K}, floats(shape.on)), k_weight = leaf({s.K}, floats(shape.on)),
                   q_grad = at::zeros({s.K}, floats(shape.on)), k_grad = at::zeros({s.K}, floats(shape.on)),
                   position = at::arange(s.N, numbers(shape.on)).remainder(s.T),
                   frequencies = rope_frequencies(shape.work.config);
  return {.run = both_ways({qkv, q_weight, k_weight},
                           [=]() -> std::vector<at::Tensor> {
                             const AttentionInput in = qk_norm_rope(qkv, q_weight, q_grad, k_weight, k_grad, position,
                                                                    s.H, s.G, kEps, frequencies, s.T - 1);
                             return {in.q_NX, in.k_NX};
                           }),
          .bytes = width_of(shape) * (product({5, s.N, s.H + s.G, s.K}) + product({2, s.N, s.G, s.K})),
          .predicted_s = predict(kernel_shape(shape.work, s.N), {Kernel::qk_norm_rope, Kernel::qk_norm_rope_backward})};
}

PreparedPath prepare_swiglu(const BenchShape& shape, bool masked) {
  const Letters s(shape);
  const at::Tensor gate_up = leaf({s.N, 2 * s.F}, activations(shape.on)),
                   mask = masked ? at::rand({s.F}, floats(shape.on)).requires_grad_() : at::Tensor();
  KernelShape sizes = kernel_shape(shape.work, s.N);
  sizes.ffn_mask = masked;
  return {.run = both_ways(masked ? std::vector<at::Tensor>{gate_up, mask} : std::vector<at::Tensor>{gate_up},
                           [=]() -> std::vector<at::Tensor> { return {swiglu(gate_up, mask)}; }),
          .bytes = width_of(shape) * product({8, s.N, s.F}),
          .predicted_s = predict(sizes, {Kernel::swiglu, Kernel::swiglu_backward})};
}
PreparedPath plain_swiglu(const BenchShape& shape) { return prepare_swiglu(shape, /*masked=*/false); }
PreparedPath masked_swiglu(const BenchShape& shape) { return prepare_swiglu(shape, /*masked=*/true); }

/// What a loader sends with a batch to a device.
TokenOrder order_of(const at::Tensor& token) { return token.is_cpu() ? TokenOrder() : make_token_order(token); }

PreparedPath embedding_rows(const BenchShape& shape) {
  const Letters s(shape);
  const at::Tensor table = leaf({s.V, s.D}, activations(shape.on)),
                   table_grad = at::zeros({s.V, s.D}, floats(shape.on)),
                   token = at::randint(s.V, {s.N}, numbers(shape.on)),
                   grad = at::randn({s.N, s.D}, activations(shape.on));
  const int64_t distinct = std::get<0>(at::_unique(token)).numel();
  const TokenOrder order = order_of(token);
  KernelShape sizes = kernel_shape(shape.work, s.N);
  sizes.distinct_tokens = distinct;
  return {.run =
              [=] {
                embedding(token, table, table_grad, s.V, order).backward(grad);
                return table_grad;
              },
          .bytes = width_of(shape) * product({3, s.N, s.D}) + 2 * kFloat * product({distinct, s.D}),
          .predicted_s = predict(sizes, {Kernel::embedding, Kernel::embedding_backward})};
}

PreparedPath attention(const BenchShape& shape) {
  const Letters s(shape);
  const at::Tensor qkv = leaf({s.N, (s.H + 2 * s.G) * s.K}, activations(shape.on));
  return {.run = both_ways({qkv},
                           [=]() -> std::vector<at::Tensor> {
                             return {causal_attention(split_heads(qkv, s.H, s.G), s.N / s.T, s.H, s.G, {})};
                           }),
          .flops = 7 * product({s.N, s.T + 1, s.H, s.K}),  // two products forward, five backward, half of the square
          .tokens = static_cast<double>(s.N),
          .predicted_s = [=, work = shape.work, tokens = static_cast<double>(s.N)](const DeviceRow& device) {
            return attention_seconds(work, tokens, device, shape.attention);
          }};
}

/// The output head and a loss over it; `step` gets the rows. `teacher_width`: of hidden states whose logits are made
/// beside the student's; 0 = none.
PreparedPath head_and_loss(const BenchShape& shape, Kernel kernel, int64_t teacher_width,
                           const std::function<LinearLoss(const HeadRows&)>& step) {
  const Letters s(shape);
  const HeadRows rows{.hidden_ND = at::randn({s.N, s.D}, activations(shape.on)),
                      .head_VD = at::randn({s.V, s.D}, activations(shape.on)) / std::sqrt(static_cast<double>(s.D)),
                      .head_grad_VD = at::zeros({s.V, s.D}, floats(shape.on)),
                      .true_label_N = at::randint(s.V, {s.N}, numbers(shape.on)),
                      .scale = 1.0 / static_cast<double>(s.N),
                      .labels_below = s.V};
  KernelShape sizes = kernel_shape(shape.work, s.N);
  sizes.ids = kIds;
  const auto rows_pass = predict(sizes, {kernel});
  const bool has_teacher = teacher_width > 0;
  return {.run = [=] { return step(rows).hidden_grad_ND; },
          .flops = product({6, s.N, s.D, s.V}) + product({2, s.N, teacher_width, s.V}),
          .tokens = static_cast<double>(s.N),
          .predicted_s =
              [=, config = shape.work.config](const DeviceRow& device) {
                const auto tokens = static_cast<double>(s.N);
                const double logits = has_teacher ? head_seconds(config, tokens, device, 2, /*both_ways=*/false) : 0;
                return head_seconds(config, tokens, device, 2, /*both_ways=*/true) + logits + rows_pass(device);
              }};
}

PreparedPath label_mix(const BenchShape& shape) {
  const Letters s(shape);
  const at::Tensor teacher_label = at::randint(s.V, {s.N}, numbers(shape.on));
  return head_and_loss(shape, Kernel::label_mix_rows, 0, [=](const HeadRows& rows) {
    return mixed_cross_entropy_step(rows, teacher_label, kTeacherWeight, 0);
  });
}

/// As wide as the student.
TeacherRows teacher_rows(const BenchShape& shape) {
  const Letters s(shape);
  return {s.N, s.D, s.V, shape.on};
}

PreparedPath stored_top_k(const BenchShape& shape) {
  const TeacherRows teacher = teacher_rows(shape);
  const TopK top = top_k(teacher.hidden_NE, teacher.head_VE, kIds, 1.0);
  return head_and_loss(shape, Kernel::top_k_rows, 0, [=](const HeadRows& rows) {
    return top_k_cross_entropy_step(rows, top, kTeacherWeight, 1.0, 0);
  });
}

PreparedPath stored_draws(const BenchShape& shape) {
  const TeacherRows teacher = teacher_rows(shape);
  const at::Tensor uniform_NR = at::rand({shape.tokens(), kDraws}, floats(shape.on).dtype(at::kDouble));
  const TopK shares = shares_of_draws(draw_ids(teacher.hidden_NE, teacher.head_VE, 1.0, uniform_NR));
  return head_and_loss(shape, Kernel::top_k_rows, 0, [=](const HeadRows& rows) {
    return drawn_cross_entropy_step(rows, shares, kTeacherWeight, 1.0, 0);
  });
}

PreparedPath live_teacher(const BenchShape& shape, const char* loss, Kernel kernel) {
  const TeacherRows teacher = teacher_rows(shape);
  return head_and_loss(shape, kernel, Letters(shape).D, [=](const HeadRows& rows) {
    return distillation_step(rows, teacher.hidden_NE, teacher.head_VE, {.loss = loss, .teacher_weight = 1});
  });
}
PreparedPath kl(const BenchShape& shape) { return live_teacher(shape, "kl", Kernel::kl_rows); }
PreparedPath jsd(const BenchShape& shape) { return live_teacher(shape, "jsd", Kernel::jsd_rows); }

PreparedPath mask_of_scores(const BenchShape& shape) {
  const Letters s(shape);
  constexpr double kEpsilon = 0.1;
  const at::Tensor scores = leaf({s.L, s.F}, floats(shape.on));
  const double kept = static_cast<double>(s.F) / 3;
  KernelShape sizes = kernel_shape(shape.work, s.L);
  return {.run = both_ways({scores}, [=]() -> std::vector<at::Tensor> { return {soft_top_k(scores, kept, kEpsilon)}; }),
          .bytes = kFloat * product({6, s.L, s.F}),
          .predicted_s = predict(sizes, {Kernel::soft_top_k, Kernel::soft_top_k_backward})};
}

/// `bytes`: of an update in float32, a parameter; a working copy is written beside it.
PreparedPath update(const BenchShape& shape, const char* name, double bytes, const std::vector<Kernel>& kernels) {
  const auto trained = std::make_shared<Trained>(shape.work.config, shape.on, name);
  if (shape.on.compute != at::kFloat) bytes += width_of(shape);
  return {.run =
              [=] {
                trained->step();
                return trained->weights();
              },
          .bytes = bytes * shape.work.parameters,
          .before = [=] { trained->fill_gradient(); },
          .predicted_s = predict(kernel_shape(shape.work, 0), kernels)};
}
PreparedPath adastar(const BenchShape& shape) {
  return update(shape, "adastar", 44,
                {Kernel::optimizer_square_sums, Kernel::adastar_square_sums, Kernel::adastar_move});
}
PreparedPath adamw(const BenchShape& shape) {
  return update(shape, "adamw", 36, {Kernel::optimizer_square_sums, Kernel::adamw_move});
}

/// Random tokens and their next ones.
Batch random_batch(const BenchShape& shape) {
  const Letters s(shape);
  const int64_t rows = shape.work.rows;
  const at::Tensor text = at::randint(s.V, {rows, s.T + 1}, numbers(shape.on));
  return {.token_BT = text.narrow(1, 0, s.T).contiguous(),
          .position_BT = at::arange(s.T, numbers(shape.on)).repeat({rows, 1}),
          .document_BT = {},
          .true_label_BT = text.narrow(1, 1, s.T).contiguous(),
          .spans = {},
          .num_live = s.N,
          .ids_below = s.V,
          .largest_position = s.T - 1,
          .token_order = order_of(text.narrow(1, 0, s.T))};
}

/// FLOPs a token of one pass that attention's whole square of scores has beyond the causal half.
double square_flops(const ModelWork& work) {
  return 2 * product({work.config.num_hidden_layers, work.config.num_attention_heads, work.config.head_dim,
                      work.seq_len - 1});
}

/// One micro-batch and the update of `shape`; `work` is that of the trained model.
PreparedPath whole_step(const BenchShape& shape, const ModelWork& work, const std::function<at::Tensor()>& run) {
  const auto tokens = static_cast<double>(work.rows * work.seq_len);
  const DeviceSettings settings{
      .micro_rows = work.rows, .recompute = shape.recompute, .split_master = shape.on.split_master};
  const double flops = tokens * training_flops_per_token(work.config, work.seq_len);
  return {
      .run = run,
      .flops = flops,
      .tokens = tokens,
      .predicted_s = [=, attention = shape.attention](
                         const DeviceRow& device) { return step_time(work, settings, device, attention).seconds(); },
      .step = StepFacts{.full_flops = flops + 3 * tokens * square_flops(work),
                        .planned_bytes = training_memory(work, settings).total()}};
}

/// `targets`: asked for in every call.
std::function<at::Tensor()> trained_step(const BenchShape& shape, const Batch& batch,
                                         const std::function<Targets()>& targets) {
  const auto trained = std::make_shared<Trained>(shape.work.config, shape.on, "adastar");
  return [=, again = shape.recompute] {
    const StepSums sums = train_micro_batch(trained->model, batch, std::vector{targets()}, {},
                                            gradient_scale(batch.num_live), head_loss, again);
    StepVote vote(0, trained->model.arena->placement().device);
    vote.count_finite(sums.values());
    trained->step(vote);
    return trained->weights();
  };
}

PreparedPath training_step(const BenchShape& shape) {
  const Batch batch = random_batch(shape);
  return whole_step(shape, shape.work, trained_step(shape, batch, [=] { return make_targets(batch, {}, {}); }));
}

PreparedPath mask_step(const BenchShape& shape) {
  constexpr double kShare = 0.5;  // of the stage
  const Letters s(shape);
  const auto trained = std::make_shared<Trained>(shape.work.config, shape.on, "adastar");
  const auto masks = std::make_shared<bench::MaskStep>(at::randn({s.L, s.F}), s.F / 3, kShare);
  const Batch batch = random_batch(shape);
  ModelWork work = shape.work;
  work.ffn_mask = true;
  return whole_step(shape, work, [=, again = shape.recompute] {
    masks->run(trained->model, trained->optimizer, batch, again);
    return trained->weights();
  });
}

/// The teacher has the student's shape; it is read beside it, and only its parameters stay.
PreparedPath distil_step(const BenchShape& shape) {
  const KdOptions options{.loss = "kl"};
  const auto teacher = std::make_shared<Model>(make_model(shape.work.config, shape.on));
  make_weights(*teacher);
  const Batch batch = random_batch(shape);
  ModelWork work = shape.work;
  work.loss = Kernel::kl_rows;
  PreparedPath path =
      whole_step(shape, work, trained_step(shape, batch, [=] {
                   return distillation_targets(
                       batch, live_signal(*teacher, batch, {.loss = options.loss, .hidden_layers = {}}), options);
                 }));
  const double read_flops = path.tokens * forward_flops_per_token(work.config, work.seq_len);
  path.flops += read_flops;
  path.step->full_flops += read_flops + path.tokens * square_flops(work);
  path.step->planned_bytes += reading_memory(work).state;
  path.predicted_s = [=, student_s = path.predicted_s, tokens = path.tokens](const DeviceRow& device) {
    return student_s(device) + tokens * reading_seconds(work, device, shape.attention);
  };
  return path;
}

constexpr HotPath kPaths[] = {{"embedding", "rows of the table, and their gradient added to it", embedding_rows},
                              {"norm", "residual add and RMSNorm", norm},
                              {"linear_qkv", "product of the packed projection", linear_qkv},
                              {"qk_norm_rope", "norm of queries and keys, and RoPE", qk_norm_and_rope},
                              {"attention", "causal, in torch's own kernel", attention},
                              {"linear_o", "product behind attention", linear_o},
                              {"linear_gate_up", "product in front of SwiGLU", linear_gate_up},
                              {"swiglu", "silu(gate) up", plain_swiglu},
                              {"swiglu_mask", "the same under a mask, and the mask's gradient", masked_swiglu},
                              {"linear_down", "product behind SwiGLU", linear_down},
                              {"label_mix", "output head and loss: a stored label and the true one", label_mix},
                              {"top_k", "output head and loss: 64 stored ids", stored_top_k},
                              {"sample", "output head and loss: 16 stored draws", stored_draws},
                              {"kl", "output head and loss: KL to a live teacher's logits", kl},
                              {"jsd", "output head and loss: JSD to a live teacher's logits", jsd},
                              {"soft_top_k", "masks of all layers from their scores", mask_of_scores},
                              {"adastar", "optimizer step", adastar},
                              {"adamw", "optimizer step", adamw},
                              {"train_step", "forward, backward and optimizer of one micro-batch", training_step},
                              {"mask_step", "the same while masks are learned", mask_step},
                              {"distil_step", "the same from a live teacher of its shape, by KL", distil_step}};

}  // namespace

BenchShape bench_shape(const Placement& on, const AskedShape& asked) {
  const bool on_cpu = on.device.is_cpu();
  ModelConfig config = preset(!asked.model.empty() ? asked.model : on_cpu ? "test" : "afm-3b", "--model");
  if (on_cpu && asked.model.empty()) {
    config.num_hidden_layers = 3, config.hidden_size = 256, config.vocab_size = 8192;
    config.num_attention_heads = 4, config.num_key_value_heads = 2, config.head_dim = 64;
    config.intermediate_size.assign(3, 1024);
  }
  if (asked.ffn_size > 0) std::ranges::fill(config.intermediate_size, asked.ffn_size);
  const auto or_else = [](int64_t given, int64_t otherwise) { return given > 0 ? given : otherwise; };
  BenchShape shape{.work = reading_work(config, or_else(asked.seq_len, on_cpu ? 256 : 4096), 0),
                   .on = on,
                   .recompute = asked.recompute,
                   .attention = asked.attention};
  shape.on.split_master = asked.split_master;
  shape.work.rows = or_else(asked.rows, on_cpu ? 4 : 2);
  shape.work.steps = 1;
  shape.work.ffn_mask = false;
  return shape;
}

std::span<const HotPath> hot_paths() { return kPaths; }

}  // namespace coppice
