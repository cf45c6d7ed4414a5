// What the loss's self-test costs before step 0: for a stage of plain labels, for one with a live teacher's
// distribution, and for several of those; seconds at the shape of a real student and its micro-batch. cpu_s is
// processor time, which a busy machine does not stretch (give --threads 1).
//   self_test_bench --width 768 --vocab 49152 --tokens 8192
#include <ctime>

#include "student/self_test.h"
#include "tests/bench/small_training.h"

using namespace coppice;
using namespace coppice::bench;

int main(int argc, char** argv) {
  const Flags flags(argc, argv,
                    {{"layers", 2},
                     {"width", 768},
                     {"heads", 12},
                     {"kv-heads", 4},
                     {"head-size", 64},
                     {"ffn", 2048},
                     {"vocab", 49152},
                     {"seq", 256},
                     {"tokens", 8192},
                     {"teachers", 2}});
  measure_ceilings(flags);
  const ModelConfig config = SmallTraining::shape(flags);
  Model model = make_model(config);
  initialise_parameters(config, *model.arena, 1);
  model.arena->enable_gradient();
  const int64_t T = flags["seq"], B = flags["tokens"] / T, N = B * T, V = config.vocab_size;
  at::manual_seed(0);
  const at::Tensor text = at::randint(V, {B, T + 1}, at::kLong);
  const Batch batch{.token_BT = text.narrow(1, 0, T).contiguous(),
                    .position_BT = at::arange(T).repeat({B, 1}),
                    .document_BT = {},
                    .true_label_BT = text.narrow(1, 1, T).contiguous(),
                    .spans = {},
                    .num_live = N};
  const at::Tensor head_VE = output_head(model).detach().clone();
  const TeacherSignal signal{.label_BT = batch.true_label_BT,
                             .top = {},
                             .hidden_NE = at::randn({N, config.hidden_size}),
                             .head_VE = head_VE,
                             .layer_ND = {}};
  const auto targets = [&](const char* loss, int64_t teachers) {
    std::vector<Targets> all(
        static_cast<size_t>(teachers),
        distillation_targets(batch, signal, {.loss = loss, .temperature = loss[0] == 'l' ? 1.0 : 2.0}));
    for (Targets& target : all) target.share = 1.0 / static_cast<double>(teachers);
    return TestBatch{.batch = batch, .targets = all};
  };
  const std::vector<std::string> names{"labels", "kl", "kl_several"};
  const std::vector<TestBatch> tests{targets("labels", 1), targets("kl", 1), targets("kl", flags["teachers"])};
  std::vector<std::function<void()>> cases;
  std::vector<double> cpu_s(tests.size(), 1e9);  // the least of a case
  for (size_t i = 0; i < tests.size(); ++i)
    cases.push_back([&, i] {
      const std::clock_t begin = std::clock();
      self_test_loss(model, std::span(&tests[i], 1));
      cpu_s[i] = std::min(cpu_s[i], static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
    });
  std::vector<Readings> readings = measure(flags, cases);
  for (size_t i = 0; i < names.size(); ++i) {
    readings[i].push_back({"cpu_s", cpu_s[i]});
    emit(names[i], flags, readings[i]);
  }
}
