// Dead channels leave model and optimizer: the loss under the mask stays what it was, the slots go with their rows, a
// checkpoint brings the shape back.
#include "pruning/compaction.h"

#include "tests/pruning/tiny.h"  // before any CHECK

#include "pruning/cut_axis.h"
#include "src/base/errors.h"
#include "tests/tensors/whole_arena.h"

using namespace coppice;
using tiny::largest;

namespace {

constexpr int64_t kLayers = 2, kChannels = 64;

/// Dead where the channel number leaves a remainder: `live` of `modulus`.
at::Tensor mask_of(int64_t live, int64_t modulus) {
  return at::arange(kChannels, at::kLong)
             .remainder(modulus)
             .lt(live)
             .to(at::kFloat)
             .expand({kLayers, kChannels})
             .contiguous() *
         0.5;
}

struct Trained {
  Model model;
  Optimizer optimizer{OptimizerOptions{}, (model.arena->enable_gradient(), *model.arena), 1, 10};
  explicit Trained(at::ScalarType compute = at::kFloat) : model(tiny::model({kChannels, kChannels}, 7, compute)) {
    fill_gradient(*model.arena, at::sin(at::arange(model.arena->layout().size, at::kFloat)) * 0.01);
    optimizer.step(*alone());
  }
};

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE(
      "compaction: only channels that were dead long enough leave, never a kept one, widths stay multiples of 16") {
    Trained trained;
    Compaction compaction(kLayers, kChannels, 2);
    const at::Tensor mask_LF = mask_of(1, 4), raw_LF = mask_LF + at::arange(kChannels, at::kFloat) * 1e-3;
    at::Tensor hard_LF = mask_LF.gt(0).to(at::kFloat);
    hard_LF[1][63] = 1;  // kept although dead: 17 stay in layer 1
    compaction.watch(mask_LF);
    CHECK_FALSE(compaction.compact(trained.model, trained.optimizer, raw_LF, hard_LF));
    compaction.watch(at::ones({kLayers, kChannels}));  // alive in between: the count begins anew
    compaction.watch(mask_LF);
    CHECK_FALSE(compaction.compact(trained.model, trained.optimizer, raw_LF, hard_LF));
    compaction.watch(mask_LF);
    REQUIRE(compaction.compact(trained.model, trained.optimizer, raw_LF, hard_LF));
    CHECK(trained.model.config.intermediate_size == std::vector<int64_t>{16, 32});
    CHECK(compaction.mean_width() == 24);
    for (int64_t i = 0; i < 16; ++i) CHECK(compaction.living()[0][static_cast<size_t>(i)] == 4 * i);
    CHECK(compaction.living()[1].back() == 63);
    CHECK(compaction.living()[1][15 + 1] >= 32);  // filled up with the best of the dead: high numbers
    CHECK(compaction.count_removed(hard_LF) == 0);
    CHECK(compaction.count_removed(at::ones({kLayers, kChannels})) == 2 * kChannels - 48);
    Compaction never(kLayers, kChannels, 0);
    for (int step = 0; step < 5; ++step) never.watch(mask_LF);
    CHECK_FALSE(never.compact(trained.model, trained.optimizer, raw_LF, hard_LF));
  }

  TEST_CASE(
      "compaction: a model that computes in bfloat16 goes on in it, its working copy with the rows that are left") {
    Trained trained(at::kBFloat16);
    Compaction compaction(kLayers, kChannels, 1);
    const at::Tensor mask_LF = mask_of(1, 2);
    const at::Tensor up_FD = trained.model.arena->parameter("layers.1.mlp.up_proj.weight").detach().clone();
    compaction.watch(mask_LF);
    REQUIRE(compaction.compact(trained.model, trained.optimizer, mask_LF, mask_LF.gt(0).to(at::kFloat)));
    CHECK((trained.model.arena->placement().compute == at::kBFloat16));
    const at::Tensor left_FD = trained.model.arena->parameter("layers.1.mlp.up_proj.weight").detach();
    CHECK(dtype_name(left_FD.scalar_type()) == "bfloat16");
    CHECK(at::equal(left_FD, up_FD.slice(0, 0, kChannels, 2)));
    fill_gradient(*trained.model.arena, at::ones({trained.model.arena->layout().size}) * 0.01);
    CHECK(trained.optimizer.step(*alone()).applied);
    CHECK(trained.optimizer.t() == 2);
  }

  TEST_CASE("compaction: the same logits under the mask, slots with their rows, and back again") {
    Trained trained;
    const Trained whole;
    Compaction compaction(kLayers, kChannels, 1);
    const at::Tensor mask_LF = mask_of(1, 2), raw_LF = mask_LF.clone();
    const at::Tensor before_NV =
        decoder_logits(whole.model, tiny::input(), masks_on(CutAxis::ffn, mask_LF, whole.model.config)).detach();
    compaction.watch(mask_LF);
    REQUIRE(compaction.compact(trained.model, trained.optimizer, raw_LF, mask_LF.gt(0).to(at::kFloat)));
    CHECK(largest(decoder_logits(trained.model, tiny::input(), compaction.masks(mask_LF)).detach() - before_NV) <
          1e-5 * largest(before_NV));
    // rows 0, 2, 4, ... of every slot
    for (const std::string& name : trained.optimizer.slot_names()) {
      const at::Tensor all_FD = whole.optimizer.slot(name, "layers.1.mlp.up_proj.weight");
      CHECK(largest(all_FD) > 0);
      CHECK(at::equal(trained.optimizer.slot(name, "layers.1.mlp.up_proj.weight"), all_FD.slice(0, 0, kChannels, 2)));
    }
    CHECK(trained.optimizer.t() == whole.optimizer.t());
    CHECK(largest(whole_gradient(*trained.model.arena)) == 0);

    // gradients come back to all masks, zero for the removed ones
    const at::Tensor leaf_LF = mask_LF.clone().set_requires_grad(true);
    decoder_hidden(trained.model, tiny::input(), compaction.masks(leaf_LF)).square().sum().backward();
    CHECK(largest(leaf_LF.grad().slice(1, 1, kChannels, 2)) == 0);
    CHECK(leaf_LF.grad().slice(1, 0, kChannels, 2).abs().min().item<float>() > 0);

    Trained resumed;
    Compaction again(kLayers, kChannels, 1);
    again.restore(compaction.living(), resumed.model, resumed.optimizer, "manifest.json");
    CHECK(at::equal(whole_master(*resumed.model.arena), whole_master(*trained.model.arena)));
    CHECK_THROWS_WITH_AS(again.restore({{0, 1}, {64}}, resumed.model, resumed.optimizer, "manifest.json"),
                         doctest::Contains("manifest.json"), UserError);

    Model expanded = tiny::model({kChannels, kChannels}, 99);
    const at::Tensor own = expanded.arena->parameter("layers.0.mlp.down_proj.weight").detach().clone();
    compaction.expand(trained.model, expanded);
    const at::Tensor down_DF = expanded.arena->parameter("layers.0.mlp.down_proj.weight").detach();
    CHECK(at::equal(down_DF.slice(1, 1, kChannels, 2), own.slice(1, 1, kChannels, 2)));
    CHECK(at::equal(down_DF.slice(1, 0, kChannels, 2),
                    whole.model.arena->parameter("layers.0.mlp.down_proj.weight").detach().slice(1, 0, kChannels, 2)));
  }
}
