// The loss layer with a teacher, hidden states to gradients of hidden states and head: label mix, forward KL, reverse
// KL, JSD against a dense teacher head, stored top-64, as one loss and in two terms, and 16 draws. The check compares
// KL and JSD with eager ATen on a few rows before the clock starts. extra_mb is the resident peak so far over what was
// there before the first call: the allocator keeps what it has, so a case never shows less than the ones before it.
// Cases carry the names of distil_loss.py, so that pair.py matches them:
//   pair.py --rounds 3 -- linear_distillation_bench --tokens 1024 --width 768 --teacher_width 768 --vocab 49152
//                      -- python distil_loss.py --tokens 1024 --width 768 --teacher-width 768 --vocab 49152
#include <cmath>
#include <fstream>

#include "src/tensors/decoupled_top_k.h"
#include "src/tensors/draws.h"
#include "src/tensors/ops.h"
#include "tests/bench/bench.h"

using namespace coppice;
using namespace coppice::bench;

namespace {

/// VmRSS or VmHWM in MB.
double resident_mb(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (word == key + ":") {
      double kilobytes = 0;
      file >> kilobytes;
      return kilobytes / 1024;
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const Flags flags(argc, argv, {{"tokens", 512}, {"width", 512}, {"teacher_width", 1024}, {"vocab", 16384}});
  const int64_t N = flags["tokens"], D = flags["width"], E = flags["teacher_width"], V = flags["vocab"];
  at::manual_seed(0);
  const Ceilings roof = measure_ceilings(flags);
  const at::Tensor hidden = at::randn({N, D}), head = at::randn({V, D}) / std::sqrt(static_cast<double>(D));
  const at::Tensor teacher_hidden = at::randn({N, E}),
                   teacher_head = at::randn({V, E}) / std::sqrt(static_cast<double>(E));
  const at::Tensor true_label = at::randint(V, {N}, at::kLong), teacher_label = at::randint(V, {N}, at::kLong);
  const at::Tensor head_grad = at::zeros({V, D});
  const double scale = 1.0 / static_cast<double>(N);
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak starts again from what is resident now
  const double before_mb = resident_mb("VmRSS");
  const TopK top = top_k(teacher_hidden, teacher_head, std::min<int64_t>(64, V), 1.0),
             shares = shares_of_draws(draw_ids(teacher_hidden, teacher_head, 1.0, at::rand({N, 16}, at::kDouble)));

  const auto mix = [&] {
    return mixed_cross_entropy_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = true_label, .scale = scale},
        teacher_label, 0.9, 0.0);
  };
  const auto distil = [&](const char* loss) {
    return distillation_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = true_label, .scale = scale},
        teacher_hidden, teacher_head, {.loss = loss, .teacher_weight = 1.0});
  };
  const auto stored = [&] {
    return top_k_cross_entropy_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = true_label, .scale = scale},
        top, 0.9, 1.0, 0.0);
  };
  const auto drawn = [&] {
    return drawn_cross_entropy_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = true_label, .scale = scale},
        shares, 0.9, 1.0, 0.0);
  };

  const auto decoupled = [&] {
    return decoupled_top_k_step(
        {.hidden_ND = hidden, .head_VD = head, .head_grad_VD = head_grad, .true_label_N = true_label, .scale = scale},
        top, 0.9, 2.0, 0.0);
  };

  const std::vector<std::pair<std::string, std::function<void()>>> cases{
      {"label_mix", [&] { mix(); }},   {"forward_kl", [&] { distil("kl"); }},
      {"jsd", [&] { distil("jsd"); }}, {"reverse_kl", [&] { distil("reverse_kl"); }},
      {"top_64", [&] { stored(); }},   {"decoupled_64", [&] { decoupled(); }},
      {"sample_16", [&] { drawn(); }}};
  std::vector<double> extra_mb;
  for (const auto& [name, function] : cases) {
    function();
    extra_mb.push_back(resident_mb("VmHWM") - before_mb);
  }

  double error = 0;
  for (const char* name : {"kl", "jsd"}) {  // gradients with respect to the hidden states of the first rows
    const int64_t rows = std::min<int64_t>(N, 64);
    const at::Tensor leaf = hidden.narrow(0, 0, rows).clone().set_requires_grad(true);
    const at::Tensor log_p = leaf.mm(head.t()).log_softmax(1),
                     log_q = teacher_hidden.narrow(0, 0, rows).mm(teacher_head.t()).log_softmax(1);
    const auto kl = [](const at::Tensor& a, const at::Tensor& b) { return (a.exp() * (a - b)).sum(); };
    const at::Tensor log_m = (0.5 * (log_p.exp() + log_q.exp())).log();
    const at::Tensor loss =
        std::string(name) == "kl" ? kl(log_q, log_p) : 0.5 * kl(log_q, log_m) + 0.5 * kl(log_p, log_m);
    (loss * scale).backward();
    const LinearLoss sums = distil(name);
    error = std::max(
        error, ((sums.hidden_grad_ND.narrow(0, 0, rows) - leaf.grad()).norm() / leaf.grad().norm()).item<double>());
  }
  emit_check(flags, error, 1e-5);

  std::vector<std::function<void()>> functions;
  for (const auto& [name, function] : cases) functions.push_back(function);
  const auto readings = measure(flags, functions);
  for (size_t i = 0; i < cases.size(); ++i) {
    const bool dense = i >= 1 && i <= 3;
    Readings line = readings[i];
    const double work = static_cast<double>(N * V) *
                        (6.0 * static_cast<double>(D) + (dense ? 2.0 * static_cast<double>(E) : 0.0)),
                 rate = work / line[0].second / 1e9;
    line.insert(line.end(), {{"tokens_per_s", static_cast<double>(N) / line[0].second},
                             {"useful_gflops", rate},
                             {"share_of_gemm", rate / roof.gemm_gflops},
                             {"extra_mb", extra_mb[i]}});
    emit(cases[i].first, flags, line);
  }
}
