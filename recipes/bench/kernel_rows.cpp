#include "recipes/bench/kernel_rows.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "recipes/bench/random_tensors.h"
#include "recipes/bench/timing.h"
#include "recipes/bench/trained.h"
#include "src/base/errors.h"
#include "src/model/parameters.h"
#include "src/tensors/calibrated_cross_entropy.h"
#include "src/tensors/cuda_devices.h"
#include "src/tensors/draws.h"
#include "src/tensors/execution.h"
#include "src/tensors/hidden_state_loss.h"
#include "src/tensors/launch_times.h"
#include "src/tensors/ops.h"

namespace coppice {
namespace {

using Tensors = std::vector<at::Tensor>;

constexpr int kWarmUps = 3, kDeviceCalls = 30, kHostCalls = 3;
constexpr double kEps = 1e-5, kTeacherWeight = 0.9;
constexpr int64_t kPositions = 4096;                     // of a sequence
constexpr int64_t kFillerElements = int64_t{512} << 20;  // of two bytes: read and written in half a millisecond

/// Its tensors are made.
struct PreparedKernels {
  std::function<void()> start_over;  // a call's state as the first one found it; empty: it has none
  std::function<void()> before;      // not measured
  std::function<Tensors()> run;      // what the call leaves
};

/// A row's kernels as the launchers of an operation.
struct Door {
  Kernel last;  // of the row
  std::vector<std::string_view> launchers;
  PreparedKernels (*prepare)(const KernelShape& shape, const Placement& on);
};

/// An operation one way: its forward pass, or its backward pass behind one that is not measured. `weight_grads` are
/// what the operation adds gradients of weights to.
PreparedKernels one_way(bool backward, const Tensors& leaves, const Tensors& weight_grads,
                        const std::function<Tensors()>& forward) {
  if (!backward) return {.start_over = {}, .before = [] {}, .run = forward};
  const auto outputs = std::make_shared<Tensors>();
  Tensors output_grads;
  for (const at::Tensor& output : forward()) output_grads.push_back(at::randn_like(output));
  return {.start_over = {},
          .before =
              [=] {
                for (const at::Tensor& one : leaves) one.mutable_grad() = at::Tensor();
                for (const at::Tensor& grad : weight_grads) grad.zero_();
                *outputs = forward();
              },
          .run =
              [=] {
                torch::autograd::backward(*outputs, output_grads);
                outputs->clear();
                Tensors left = weight_grads;
                for (const at::Tensor& one : leaves)
                  if (one.grad().defined()) left.push_back(one.grad());
                return left;
              }};
}

template <bool backward>
PreparedKernels norm(const KernelShape& s, const Placement& on) {
  const at::Tensor x = leaf({s.rows, s.hidden_size}, activations(on)), delta = leaf(x.sizes(), activations(on)),
                   weight = leaf({s.hidden_size}, floats(on)), weight_grad = at::zeros({s.hidden_size}, floats(on));
  return one_way(backward, {x, delta, weight}, {weight_grad}, [=]() -> Tensors {
    const ResidualNorm out = residual_rms_norm(x, delta, weight, weight_grad, kEps);
    return {out.residual_ND, out.normed_ND};
  });
}

template <bool backward>
PreparedKernels heads(const KernelShape& s, const Placement& on) {
  const int64_t num_heads = s.query_size / s.head_size, num_kv_heads = s.key_value_size / s.head_size;
  const at::Tensor qkv = leaf({s.rows, s.query_size + 2 * s.key_value_size}, activations(on)),
                   q_weight = leaf({s.head_size}, floats(on)), k_weight = leaf({s.head_size}, floats(on)),
                   q_grad = at::zeros({s.head_size}, floats(on)), k_grad = at::zeros({s.head_size}, floats(on)),
                   position = at::arange(s.rows, numbers(on)).remainder(kPositions),
                   frequencies = rope_frequencies(500'000, s.head_size);
  return one_way(backward, {qkv, q_weight, k_weight}, {q_grad, k_grad}, [=]() -> Tensors {
    const AttentionInput in = qk_norm_rope(qkv, q_weight, q_grad, k_weight, k_grad, position, num_heads, num_kv_heads,
                                           kEps, frequencies, kPositions - 1);
    return {in.q_NX, in.k_NX, in.v_NX};
  });
}

template <bool backward>
PreparedKernels masked_swiglu(const KernelShape& s, const Placement& on) {
  const at::Tensor gate_up = leaf({s.rows, 2 * s.ffn_size}, activations(on)),
                   ffn_mask = at::rand({s.ffn_size}, floats(on)).requires_grad_();
  return one_way(backward, {gate_up, ffn_mask}, {}, [=]() -> Tensors { return {swiglu(gate_up, ffn_mask)}; });
}

/// In front of a narrow product, whose weight's gradient asks for the hidden values again.
PreparedKernels swiglu_and_linear(const KernelShape& s, const Placement& on) {
  const int64_t width = on.device.is_cpu() ? 32 : 512;
  const at::Tensor gate_up = leaf({s.rows, 2 * s.ffn_size}, activations(on)),
                   ffn_mask = at::rand({s.ffn_size}, floats(on)).requires_grad_(),
                   weight = leaf({width, s.ffn_size}, activations(on)),
                   weight_grad = at::zeros(weight.sizes(), floats(on));
  return one_way(/*backward=*/true, {gate_up, ffn_mask, weight}, {weight_grad},
                 [=]() -> Tensors { return {swiglu_linear(gate_up, ffn_mask, weight, weight_grad)}; });
}

template <bool backward>
PreparedKernels token_rows(const KernelShape& s, const Placement& on) {
  const int64_t vocab = on.device.is_cpu() ? 512 : 49'152;
  const at::Tensor table = leaf({vocab, s.hidden_size}, activations(on)),
                   table_grad = at::zeros(table.sizes(), floats(on)),
                   ids = at::randperm(vocab).narrow(0, 0, s.distinct_tokens),
                   token = ids.index({at::arange(s.rows).remainder(s.distinct_tokens)}).index({at::randperm(s.rows)});
  const at::Tensor there = token.to(on.device);
  const TokenOrder order = make_token_order(token).to(on.device);
  return one_way(backward, {table}, {table_grad},
                 [=]() -> Tensors { return {embedding(there, table, table_grad, vocab, order)}; });
}

/// The loss of a row of logits, all rows in one chunk, behind a narrow product that makes them.
PreparedKernels logit_rows(const KernelShape& s, const Placement& on,
                           const std::function<LinearLoss(const HeadRows&)>& loss) {
  const int64_t width = on.device.is_cpu() ? 32 : 512;
  const HeadRows rows{.hidden_ND = at::randn({s.rows, width}, activations(on)),
                      .head_VD = at::randn({s.vocab_size, width}, activations(on)) / std::sqrt(width),
                      .head_grad_VD = at::zeros({s.vocab_size, width}, floats(on)),
                      .true_label_N = at::randint(s.vocab_size, {s.rows}, numbers(on)),
                      .scale = 1 / static_cast<double>(s.rows),
                      .chunk_rows = s.rows,
                      .labels_below = s.vocab_size};
  return {.start_over = {},
          .before = [=] { rows.head_grad_VD.zero_(); },
          .run = [=]() -> Tensors {
            const LinearLoss left = loss(rows);
            return {left.sum_S, left.hidden_grad_ND, rows.head_grad_VD};
          }};
}

PreparedKernels label_mix(const KernelShape& s, const Placement& on) {
  const at::Tensor teacher_label = at::randint(s.vocab_size, {s.rows}, numbers(on));
  return logit_rows(
      s, on, [=](const HeadRows& rows) { return mixed_cross_entropy_step(rows, teacher_label, kTeacherWeight, 0); });
}

TeacherRows teacher_rows(const KernelShape& s, const Placement& on) {
  return {s.rows, on.device.is_cpu() ? 32 : 512, s.vocab_size, on};
}

PreparedKernels stored_ids(const KernelShape& s, const Placement& on) {
  const TeacherRows teacher = teacher_rows(s, on);
  const TopK top = top_k(teacher.hidden_NE, teacher.head_VE, s.ids, 1.0);
  return logit_rows(s, on,
                    [=](const HeadRows& rows) { return top_k_cross_entropy_step(rows, top, kTeacherWeight, 1.0, 0); });
}

PreparedKernels divergence(const KernelShape& s, const Placement& on, const char* loss) {
  const TeacherRows teacher = teacher_rows(s, on);
  return logit_rows(s, on, [=](const HeadRows& rows) {
    return distillation_step(rows, teacher.hidden_NE, teacher.head_VE, {.loss = loss, .teacher_weight = 1});
  });
}
PreparedKernels kl(const KernelShape& s, const Placement& on) { return divergence(s, on, "kl"); }
PreparedKernels jsd(const KernelShape& s, const Placement& on) { return divergence(s, on, "jsd"); }

template <bool cosine, bool backward>
PreparedKernels hidden_states(const KernelShape& s, const Placement& on) {
  const at::Tensor student = leaf({s.rows, s.hidden_size}, activations(on)),
                   teacher = at::randn({s.rows, s.hidden_size}, activations(on)),
                   live = at::ones({s.rows}, activations(on).dtype(at::kBool));
  return one_way(backward, {student}, {}, [=]() -> Tensors {
    return {sum_hidden_state_loss(cosine ? "cosine" : "mse", student, teacher, live)};
  });
}

PreparedKernels first_choices(const KernelShape& s, const Placement& on) {
  const TeacherRows teacher = teacher_rows(s, on);
  return one_way(/*backward=*/false, {}, {}, [=]() -> Tensors { return {top_1(teacher.hidden_NE, teacher.head_VE)}; });
}

template <bool weighted>
PreparedKernels draws(const KernelShape& s, const Placement& on) {
  constexpr double kProposal = weighted ? 1.2 : 1.0;
  const TeacherRows teacher = teacher_rows(s, on);
  const at::Tensor uniform = at::rand({s.rows, s.ids}, activations(on).dtype(at::kDouble));
  return one_way(/*backward=*/false, {}, {}, [=]() -> Tensors {
    const WeightedDraws drawn = draw_weighted_ids(teacher.hidden_NE, teacher.head_VE, 1.0, kProposal, uniform);
    return weighted ? Tensors{drawn.id_NR, drawn.log_weight_NR} : Tensors{drawn.id_NR};
  });
}

PreparedKernels calibration(const KernelShape& s, const Placement& on) {
  const TeacherRows model = teacher_rows(s, on);
  const HeadRows rows{.hidden_ND = model.hidden_NE,
                      .head_VD = model.head_VE,
                      .true_label_N = at::randint(s.vocab_size, {s.rows}, numbers(on)),
                      .labels_below = s.vocab_size};
  return one_way(/*backward=*/false, {}, {}, [=]() -> Tensors {
    const CalibratedLoss loss = calibrated_cross_entropy(rows, /*teacher_label_N=*/{}, 0);
    std::vector<double> curve;
    for (const TemperaturePoint& point : loss.parts[1].curve)
      curve.insert(curve.end(), {point.ce, point.slope, point.curvature});
    return {at::tensor(curve, at::kDouble)};
  });
}

template <bool backward>
PreparedKernels masks(const KernelShape& s, const Placement& on) {
  const at::Tensor scores = leaf({s.rows, s.ffn_size}, floats(on));
  const double kept = static_cast<double>(s.ffn_size) / 3;
  return one_way(backward, {scores}, {}, [=]() -> Tensors { return {soft_top_k(scores, kept, /*epsilon=*/0.1)}; });
}

/// The preset whose number of parameters is next to the row's.
ModelConfig model_of(int64_t parameters) {
  const std::vector<std::string> names = preset_names();
  return preset(*std::ranges::min_element(
                    names, {},
                    [&](const std::string& name) { return std::abs(count_parameters(preset(name, "")) - parameters); }),
                "");
}

PreparedKernels update(const KernelShape& s, Placement on, const char* optimizer, bool split_master) {
  on.split_master = split_master;
  const auto trained = std::make_shared<Trained>(model_of(s.parameters), on, optimizer);
  return {.start_over =
              [=] {
                at::manual_seed(2);  // of weights and gradient
                trained->start_over();
              },
          .before = [=] { trained->fill_gradient(); },
          .run =
              [=] {
                trained->step();
                Tensors left;
                const ParameterArena& arena = *trained->model.arena;
                for (size_t unit = 0; unit < arena.layout().units.size(); ++unit)
                  for (const at::Tensor& part :
                       {arena.unit_master(unit), arena.unit_working(unit), arena.unit_remainder(unit)})
                    if (part.defined()) left.push_back(part);
                return left;
              }};
}
PreparedKernels adastar(const KernelShape& s, const Placement& on) { return update(s, on, "adastar", false); }
PreparedKernels split_adastar(const KernelShape& s, const Placement& on) { return update(s, on, "adastar", true); }
PreparedKernels adamw(const KernelShape& s, const Placement& on) { return update(s, on, "adamw", false); }

const std::vector<Door>& doors() {
  using enum Kernel;
  static const std::vector<Door> kDoors = {
      {residual_rms_norm, {"residual_rms_norm"}, norm<false>},
      {residual_rms_norm_backward, {"residual_rms_norm_backward"}, norm<true>},
      {qk_norm_rope, {"qk_norm_rope"}, heads<false>},
      {qk_norm_rope_backward, {"qk_norm_rope_backward"}, heads<true>},
      {Kernel::swiglu, {"swiglu"}, masked_swiglu<false>},
      {swiglu_backward, {"swiglu_backward"}, masked_swiglu<true>},
      {swiglu_backward_with_hidden, {"swiglu_backward"}, swiglu_and_linear},
      {Kernel::embedding, {"embedding"}, token_rows<false>},
      {embedding_backward, {"embedding_backward"}, token_rows<true>},
      {label_mix_rows, {"mixed_cross_entropy"}, label_mix},
      {top_k_rows, {"top_k_cross_entropy"}, stored_ids},
      {kl_rows, {"distillation"}, kl},
      {jsd_rows, {"distillation"}, jsd},
      {Kernel::soft_top_k, {"soft_top_k"}, masks<false>},
      {soft_top_k_backward, {"soft_top_k_backward"}, masks<true>},
      {hidden_state_mse, {"hidden_state_loss"}, hidden_states<false, false>},
      {hidden_state_cosine, {"hidden_state_loss"}, hidden_states<true, false>},
      {hidden_state_backward, {"hidden_state_loss_backward"}, hidden_states<true, true>},
      {top_1_rows, {"top_1"}, first_choices},
      {draw_rows, {"draw_ids"}, draws<false>},
      {weighted_draw_rows, {"draw_ids"}, draws<true>},
      {Kernel::calibrated_rows, {"calibrated_rows"}, calibration},
      {adastar_move, {"optimizer_square_sums", "adastar_square_sums", "adastar_move"}, adastar},
      {adastar_move_split, {"optimizer_square_sums", "adastar_square_sums", "adastar_move"}, split_adastar},
      {adamw_move, {"optimizer_square_sums", "adamw_move"}, adamw},
  };
  return kDoors;
}

const Door& door_of(const PredictedRow& row) {
  const auto found = std::ranges::find(doors(), row.kernels.back(), &Door::last);
  COPPICE_CHECK(found != doors().end(), kernel_names(row) + ": nobody measures this row");
  return *found;
}

/// What the executor gets through in no time.
KernelShape made_tiny(KernelShape shape) {
  const auto at_most = [](int64_t& size, int64_t most) { size = std::min(size, most); };
  at_most(shape.rows, 8), at_most(shape.hidden_size, 64), at_most(shape.ffn_size, 64), at_most(shape.vocab_size, 512);
  at_most(shape.query_size, 32), at_most(shape.key_value_size, 16), at_most(shape.head_size, 16);
  at_most(shape.ids, 4), at_most(shape.distinct_tokens, 5), at_most(shape.parameters, 30'000);
  return shape;
}

/// Reads and writes what is many times as large as a device's cache, for longer than the host takes to enqueue a call.
class Filler {
 public:
  explicit Filler(const Placement& on) {
    if (on.device.is_cpu()) return;
    from_ = at::randn({kFillerElements}, activations(on).dtype(at::kBFloat16));
    to_ = at::empty_like(from_);
  }
  void run() const {
    if (to_.defined()) to_.copy_(from_);
  }

 private:
  at::Tensor from_, to_;
};

/// Of each tensor the sum of its bits, read as whole numbers: another one where any element's bits are others.
std::vector<int64_t> sums_of_bits(const Tensors& tensors) {
  std::vector<int64_t> sums;
  for (const at::Tensor& tensor : tensors) {
    const at::ScalarType bits = tensor.element_size() == 2   ? at::kShort
                                : tensor.element_size() == 4 ? at::kInt
                                                             : at::kLong;
    sums.push_back(tensor.detach().view(bits).sum(at::kLong).item<int64_t>());
  }
  return sums;
}

/// Two calls from the same state, the first of which is looked at; true when they leave the same bits.
bool check_result(const PredictedRow& row, const PreparedKernels& prepared) {
  std::vector<int64_t> first;
  for (int call = 0; call < 2; ++call) {
    if (prepared.start_over) prepared.start_over();
    prepared.before();
    const Tensors left = prepared.run();
    if (call > 0) return sums_of_bits(left) == first;
    for (const at::Tensor& tensor : left)
      COPPICE_CHECK(tensor.isfinite().all().item<bool>(), kernel_names(row) + ": what it leaves is not finite");
    first = sums_of_bits(left);
  }
  return false;
}

/// Seconds of the row's kernels in each call.
std::vector<double> take_times(const PredictedRow& row, const Door& door, const PreparedKernels& prepared,
                               const Placement& on) {
  const Filler filler(on);
  LaunchTimes times;
  std::vector<double> calls;
  const int num_calls = on.device.is_cpu() ? kHostCalls : kDeviceCalls;
  for (int call = -kWarmUps; call < num_calls; ++call) {
    prepared.before();
    filler.run();
    prepared.run();
    double seconds = 0;
    const std::vector<KernelTime> sums = sums_by_kernel(times.take());
    for (const std::string_view launcher : door.launchers) {
      const auto found = std::ranges::find(sums, launcher, &KernelTime::kernel);
      COPPICE_CHECK(found != sums.end(), fmt::format("{}: no launch of {}", kernel_names(row), launcher));
      seconds += found->seconds;
    }
    if (call >= 0) calls.push_back(seconds);
  }
  return calls;
}

void measure(const PredictedRow& row, const Door& door, const Placement& on, MeasuredKernels& measured) {
  const PreparedKernels prepared = door.prepare(measured.tiny ? made_tiny(row.shape) : row.shape, on);
  measured.repeats = check_result(row, prepared);
  const std::vector<double> calls = take_times(row, door, prepared, on);
  measured.calls = std::ssize(calls);
  measured.median_s = bench::quantile(calls, 0.5);
  measured.p20_s = bench::quantile(calls, 0.2);
  measured.p80_s = bench::quantile(calls, 0.8);
}

}  // namespace

MeasuredKernels measure_kernels(const PredictedRow& row, const Placement& on, const bench::Ceilings& roof,
                                const DeviceRow* device) {
  MeasuredKernels measured{.row = &row, .skipped = "", .tiny = on.device.is_cpu()};
  const Door& door = door_of(row);
  std::optional<EmulatedFloat32> rehearsal;
  if (on.device.is_cpu())
    rehearsal.emplace();
  else
    release_card_memory();
  try {
    measure(row, door, on, measured);
  } catch (const c10::Error& error) {
    if (!is_out_of_memory(error)) throw;
    measured.skipped = "memory is short";
  } catch (const DeviceError& error) {
    if (error.code() != ExitCode::out_of_memory) throw;
    measured.skipped = error.what();
  }
  if (!measured.skipped.empty() || measured.tiny) return measured;
  measured.gbs = row.bytes() / measured.median_s / 1e9;
  measured.share_of_copy = measured.gbs / roof.copy_gbs;
  if (device != nullptr) measured.predicted_s = row.seconds(device->rates);
  return measured;
}

std::string kernel_names(const PredictedRow& row) {
  std::string names;
  for (const Kernel kernel : row.kernels) names += (names.empty() ? "" : ", ") + std::string(cost_of(kernel).name);
  return names;
}

nlohmann::ordered_json kernels_json(const MeasuredKernels& measured) {
  nlohmann::ordered_json json = {{"case", "kernel"}, {"kernels", nlohmann::ordered_json::array()}};
  for (const Kernel kernel : measured.row->kernels) json["kernels"].push_back(cost_of(kernel).name);
  json["shape"] = measured.tiny ? "tiny" : measured.row->in_words;
  if (!measured.skipped.empty()) {
    json["skipped"] = measured.skipped;
    return json;
  }
  json["calls"] = measured.calls;
  json["median_us"] = 1e6 * measured.median_s;
  json["p20_us"] = 1e6 * measured.p20_s;
  json["p80_us"] = 1e6 * measured.p80_s;
  if (!measured.tiny) {
    json["gbs"] = measured.gbs;
    json["share_of_copy"] = measured.share_of_copy;
  }
  if (measured.predicted_s > 0) {
    json["predicted_us"] = 1e6 * measured.predicted_s;
    json["measured_by_predicted"] = measured.median_s / measured.predicted_s;
  }
  json["repeats"] = measured.repeats;
  return json;
}

std::string kernels_table(const std::vector<MeasuredKernels>& rows, const DeviceRow* device) {
  const auto shown = [](bool known, const std::string& text) { return known ? text : std::string("-"); };
  std::string text =
      fmt::format("{:>10} {:>8} {:>10} {:>15} {:>8} {:>8}  {}\n", "us", "GB/s", "of copies",
                  shown(device != nullptr, device == nullptr ? "" : std::string(device->name) + " predicted"), "ratio",
                  "repeats", "kernel");
  for (const MeasuredKernels& one : rows) {
    const std::string what =
        fmt::format("{} at {}", kernel_names(*one.row), one.tiny ? "a tiny shape" : one.row->in_words);
    if (!one.skipped.empty()) {
      text += fmt::format("{:>64}  {}\n", "skipped", what + ": " + one.skipped);
      continue;
    }
    const bool predicted = one.predicted_s > 0;
    text += fmt::format("{:>10.1f} {:>8} {:>10} {:>15} {:>8} {:>8}  {}\n", 1e6 * one.median_s,
                        shown(!one.tiny, fmt::format("{:.0f}", one.gbs)),
                        shown(!one.tiny, fmt::format("{:.0f}%", 100 * one.share_of_copy)),
                        shown(predicted, fmt::format("{:.1f}", 1e6 * one.predicted_s)),
                        shown(predicted, fmt::format("{:.2f}", one.median_s / one.predicted_s)),
                        one.repeats ? "yes" : "no", what);
  }
  return text;
}

}  // namespace coppice
