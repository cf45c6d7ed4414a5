// The optimizer step over an arena beside memory copies: gbs counts the bytes that a fused step must move (gradient
// norm 4, adastar 12 + 28, adamw 32 a parameter, zeroing included), share_of_copy sets them beside the copy rate of
// this run. The check compares one step with the double reference.
//   optimizer_bench --layers 4 --width 512 --ffn 1408 --vocab 16384
#include <cmath>

#include "src/optim/optimizer.h"
#include "src/tensors/kernels/optimizer_step.h"
#include "tests/bench/bench.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

/// Blocks as in a model: per layer QKV, output, gate, up, down and two norms; the table; the last norm.
ArenaLayout make_layout(int64_t layers, int64_t width, int64_t ffn, int64_t vocab) {
  ArenaLayout layout;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    const int64_t size = rows * columns;
    layout.entries.push_back({.name = name,
                              .shape = rows == 1 ? std::vector<int64_t>{columns} : std::vector<int64_t>{rows, columns},
                              .offset = layout.size,
                              .size = size});
    layout.blocks.push_back({.name = name, .offset = layout.size, .size = size});
    layout.size += (size + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  };
  add("table", vocab, width);
  for (int64_t layer = 0; layer < layers; ++layer) {
    const std::string at = fmt::format("layers.{}.", layer);
    add(at + "norm_1", 1, width), add(at + "qkv", 2 * width, width), add(at + "o", width, width),
        add(at + "norm_2", 1, width);
    add(at + "gate", ffn, width), add(at + "up", ffn, width), add(at + "down", width, ffn);
  }
  add("norm", 1, width);
  layout.units.push_back({.name = "all", .offset = 0, .size = layout.size});
  return layout;
}

/// Largest relative error of theta after one step from given state.
double check_step(const std::string& name, ParameterArena& arena, const at::Tensor& noise) {
  OptimizerOptions options;
  options.optimizer = name;
  Optimizer optimizer(options, arena, 0, 1000000);
  arena.unit_gradient(0).copy_(noise);
  at::Tensor theta = arena.unit_master(0).to(at::kDouble), gradient = noise.to(at::kDouble), v = at::zeros_like(theta),
             m = at::zeros_like(theta);
  const double schedule = schedule_factor(1, 0, 1000000, options.final_lr_ratio),
               norm = optimizer.step(*alone()).grad_norm;
  std::vector<OptimizerBlock> blocks;
  for (const ArenaBlock& block : arena.layout().blocks)
    blocks.push_back({block.offset, block.size, schedule * options.lr, schedule * options.weight_decay});
  const OptimizerStepReference reference{.theta = theta.mutable_data_ptr<double>(),
                                         .gradient = gradient.mutable_data_ptr<double>(),
                                         .v = v.mutable_data_ptr<double>(),
                                         .m = m.mutable_data_ptr<double>(),
                                         .blocks = blocks,
                                         .clip = std::min(1.0, options.max_grad_norm / (norm + 1e-8)),
                                         .beta_1 = options.beta_1,
                                         .beta_2 = options.beta_2,
                                         .t = 1};
  name == "adamw" ? adamw_step_reference(reference) : adastar_step_reference(reference);
  return ((arena.unit_master(0).to(at::kDouble) - theta).abs().max() / theta.abs().max()).item<double>();
}

}  // namespace

int main(int argc, char** argv) {
  const Flags flags(argc, argv, {{"layers", 4}, {"width", 512}, {"ffn", 1408}, {"vocab", 16384}});
  at::manual_seed(0);
  const Ceilings roof = measure_ceilings(flags);
  ParameterArena arena(make_layout(flags["layers"], flags["width"], flags["ffn"], flags["vocab"]));
  arena.enable_gradient();
  arena.unit_master(0).copy_(at::randn({arena.layout().size}) * 0.02);
  const at::Tensor noise = at::randn({arena.layout().size}) * 1e-3;
  emit_check(flags, std::max(check_step("adastar", arena, noise), check_step("adamw", arena, noise)), 1e-6);

  OptimizerOptions adastar, adamw;
  adamw.optimizer = "adamw";
  Optimizer first(adastar, arena, 0, 1000000), second(adamw, arena, 0, 1000000);
  const auto fill = [&] {
    arena.unit_gradient(0).copy_(noise);
  };  // the backward pass of this benchmark, taken off below
  const auto readings =
      measure(flags, {fill, [&] { fill(), first.step(*alone()); }, [&] { fill(), second.step(*alone()); }});
  const auto count = static_cast<double>(arena.layout().size);
  const std::vector<std::pair<std::string, double>> cases{{"adastar", 44}, {"adamw", 36}};
  for (size_t i = 0; i < cases.size(); ++i) {
    Readings line = readings[i + 1];
    const double step = line[0].second - readings[0][0].second, rate = cases[i].second * count / step / 1e9;
    line.insert(line.end(), {{"parameters", count},
                             {"step_s", step},
                             {"gbs", rate},
                             {"share_of_copy", rate / roof.copy_gbs},
                             {"mparams_per_s", count / step / 1e6}});
    emit(cases[i].first, flags, line);
  }
}
