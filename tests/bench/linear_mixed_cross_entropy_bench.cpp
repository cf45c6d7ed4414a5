// The loss layer, hidden states to gradients of hidden states and head: ours (0.9/0.1 labels, plain labels, forward
// only; with its calibration) beside eager ATen, which materialises the logits. The check compares losses and gradients
// with the eager ones before the clock starts.
//   linear_mixed_cross_entropy_bench --tokens 1024 --width 768 --vocab 49152
#include <cmath>

#include "src/tensors/calibrated_cross_entropy.h"
#include "src/tensors/ops.h"
#include "tests/bench/bench.h"

using namespace coppice;
using namespace coppice::bench;

int main(int argc, char** argv) {
  const Flags flags(argc, argv, {{"tokens", 2048}, {"width", 96}, {"vocab", 512}});
  const int64_t N = flags["tokens"], D = flags["width"], V = flags["vocab"];
  at::manual_seed(0);
  const Ceilings roof = measure_ceilings(flags);
  at::Tensor hidden = at::randn({N, D}), head = at::randn({V, D}) / std::sqrt(static_cast<double>(D));
  const at::Tensor true_label = at::randint(V, {N}, at::kLong), teacher_label = at::randint(V, {N}, at::kLong);
  at::Tensor head_grad = at::zeros({V, D}), hidden_leaf = hidden.clone().set_requires_grad(true),
             head_leaf = head.clone().set_requires_grad(true);
  const double scale = 1.0 / static_cast<double>(N);

  const auto ours = [&](double teacher_weight) {
    return mixed_cross_entropy_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = true_label, .scale = scale},
        teacher_label, teacher_weight, 0.0);
  };
  const auto eager = [&](double teacher_weight) {
    hidden_leaf.mutable_grad() = head_leaf.mutable_grad() = at::Tensor();
    const at::Tensor logits = hidden_leaf.mm(head_leaf.t());
    at::Tensor loss;
    if (teacher_weight == 0.0) {
      loss = at::cross_entropy_loss(logits, true_label);
    } else {  // one log-softmax, two gathers
      const at::Tensor picked = at::log_softmax(logits, -1).gather(-1, at::stack({true_label, teacher_label}, -1));
      loss = -((1.0 - teacher_weight) * picked.select(1, 0) + teacher_weight * picked.select(1, 1)).mean();
    }
    loss.backward();
    return loss.item<double>();
  };

  double error = 0;
  for (const double weight : {0.0, 0.9}) {
    head_grad.zero_();
    const LinearLoss step = ours(weight);
    const LinearLossSums sums = step.read();
    const double wanted = eager(weight), got = (sums.ce + weight * (sums.kd - (weight == 0.0 ? 0.0 : sums.ce))) * scale;
    const auto distance = [](const at::Tensor& a, const at::Tensor& b) {
      return ((a - b).norm() / b.norm()).item<double>();
    };
    error = std::max({error, std::abs(got - wanted) / wanted, distance(step.hidden_grad_ND, hidden_leaf.grad()),
                      distance(head_grad, head_leaf.grad())});
  }
  emit_check(flags, error, 1e-5);

  const std::vector<std::string> names{"label_mix", "cross_entropy", "eager_label_mix", "eager_cross_entropy",
                                       "forward",   "top_1",         "calibrated"};
  const auto readings =
      measure(flags, {[&] { ours(0.9); }, [&] { ours(0.0); }, [&] { eager(0.9); }, [&] { eager(0.0); },
                      [&] {
                        mixed_cross_entropy_step(
                            {.hidden_ND = hidden, .head_VD = head, .true_label_N = true_label, .scale = scale},
                            teacher_label, 0.9, 0.0);
                      },
                      [&] { top_1(hidden, head); },
                      [&] {
                        calibrated_cross_entropy({.hidden_ND = hidden, .head_VD = head, .true_label_N = true_label},
                                                 teacher_label, N / 2);
                      }});
  for (size_t i = 0; i < names.size(); ++i) {
    Readings line = readings[i];
    const double seconds = line[0].second, products = i < 4 ? 6.0 : 2.0;
    const double rate = products * static_cast<double>(N * D * V) / seconds / 1e9;
    line.insert(line.end(), {{"tokens_per_s", static_cast<double>(N) / seconds},
                             {"gflops", rate},
                             {"share_of_gemm", rate / roof.gemm_gflops}});
    if (i < 2) line.push_back({"ratio_to_eager", readings[i + 2][0].second / seconds});
    emit(names[i], flags, line);
  }
}
