#include "src/tensors/arena.h"

#include "src/base/errors.h"
#include "src/tensors/ops.h"
#include "tests/tensors/compare.h"

using namespace coppice;

namespace {

// q and k of one block, then a norm on the next multiple of 16.
ArenaLayout small_layout() {
  return {.entries = {{"q", {2, 3}, 0, 6}, {"k", {4, 3}, 6, 12}, {"norm", {5}, 32, 5}},
          .blocks = {{"qk", 0, 18, 1.0}, {"norm", 32, 5, 1.0}},
          .units = {{"layer", 0, 32}, {"last", 32, 16}},
          .size = 48};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("ParameterArena: parameters and gradients are views of one buffer each") {
    ParameterArena arena(small_layout());
    CHECK(arena.unit_master(0).numel() == 32);
    CHECK(arena.unit_master(1).numel() == 16);
    CHECK(arena.unit_master(0).abs().max().item<float>() == 0.0f);
    CHECK(reinterpret_cast<uintptr_t>(arena.unit_master(0).const_data_ptr()) % 64 == 0);
    arena.parameter("k").detach().fill_(2.0);
    CHECK(arena.unit_master(0).sum().item<float>() == 24.0f);
    CHECK(arena.parameter(1).sizes() == at::IntArrayRef({4, 3}));
    CHECK_FALSE(arena.parameter("k").requires_grad());
    CHECK_FALSE(arena.has_gradient());
    CHECK_THROWS_AS(arena.gradient_of("k"), InternalError);

    arena.enable_gradient();
    CHECK(arena.parameter("k").requires_grad());
    CHECK(arena.parameter("k").is_leaf());
    arena.gradient_of("norm").fill_(1.0);
    CHECK(arena.unit_gradient(1).sum().item<float>() == 5.0f);
    arena.zero_gradient();
    CHECK(arena.unit_gradient(1).sum().item<float>() == 0.0f);
  }

  TEST_CASE("ParameterArena: the master is read and edited by whole tensors; in float32 it is the working copy") {
    ParameterArena arena(small_layout());
    {
      const MasterEditor master = arena.edit_master();
      master["k"].fill_(0.25);
      master["norm"].fill_(3.0);
      CHECK_THROWS_WITH_AS(master["o"], doctest::Contains("no parameter 'o'"), InternalError);
    }
    const MasterReader master = arena.read_master();
    CHECK(master["k"].sizes() == at::IntArrayRef({4, 3}));
    CHECK_FALSE(arena.unit_working(0).defined());
    for (const char* name : {"q", "k", "norm"}) {
      CHECK(dtype_name(arena.parameter(name).scalar_type()) == "float32");
      CHECK(arena.parameter(name).const_data_ptr() == master[name].const_data_ptr());
    }
    arena.enable_gradient();
    CHECK_FALSE(master["k"].requires_grad());
  }

  TEST_CASE("ParameterArena: a bfloat16 working copy follows the master at the end of an edit, norms stay float32") {
    ParameterArena arena(small_layout(), {.device = at::kCPU, .compute = at::kBFloat16});
    const float third = 1.0f / 3.0f;  // 0x3eaaaaab: the upper half rounds up to 0x3eab
    {
      const MasterEditor master = arena.edit_master();
      master["q"].fill_(third);
      master["k"].copy_(at::arange(12).view({4, 3}) * 0.1);
      master["norm"].fill_(third);
      CHECK(arena.parameter("q").eq(0).all().item<bool>());  // not yet
    }
    CHECK(dtype_name(arena.parameter("q").scalar_type()) == "bfloat16");
    CHECK(arena.parameter("q").to(at::kFloat).eq(0.333984375f).all().item<bool>());
    CHECK(arena.parameter(1).equal(arena.read_master()["k"].to(at::kBFloat16)));
    CHECK(dtype_name(arena.fused_parameter("q", "k").scalar_type()) == "bfloat16");
    CHECK(arena.fused_parameter("q", "k").sizes() == at::IntArrayRef({6, 3}));
    CHECK(dtype_name(arena.parameter("norm").scalar_type()) == "float32");
    CHECK(arena.parameter("norm").eq(third).all().item<bool>());
    CHECK(arena.read_master()["q"].eq(third).all().item<bool>());  // the master keeps what it was given

    arena.enable_gradient();
    CHECK(dtype_name(arena.gradient_of("q").scalar_type()) == "float32");
    CHECK(arena.parameter("q").requires_grad());
    arena.unit_master(0).fill_(2.0);
    arena.refresh_working(0);
    CHECK(arena.parameter("k").eq(2).all().item<bool>());
    CHECK(arena.unit_working(0).sizes() == at::IntArrayRef({32}));
    CHECK(arena.unit_working(0).const_data_ptr() == arena.parameter("q").const_data_ptr());
    CHECK((arena.placement().compute == at::kBFloat16));
    CHECK_THROWS_WITH_AS(ParameterArena(small_layout(), {.compute = at::kHalf}),
                         doctest::Contains("a model computes in float32 or bfloat16, got float16"), InternalError);
  }

  TEST_CASE(
      "ParameterArena: a split master gives back the bits that it was given, and computes with what a whole one does") {
    ParameterArena whole(small_layout(), {.compute = at::kBFloat16}),
        split(small_layout(), {.compute = at::kBFloat16, .split_master = true});
    const at::Tensor q = randn({2, 3}, 1), k = randn({4, 3}, 2), norm = randn({5}, 3);
    const float tie = 1.00390625f;  // 1 + 2^-8, halfway between two of bfloat16: away from zero, to an odd one
    for (ParameterArena* arena : {&whole, &split}) {
      const MasterEditor master = arena->edit_master();
      master["q"].copy_(q);
      master["k"].copy_(k);
      master["norm"].copy_(norm);
      master["q"][1][2] = -tie;
      const at::Tensor held = master["k"], part = master["norm"].narrow(0, 1, 2);
      CHECK(master["q"][1][2].item<float>() == -tie);
      held[0][0] = 1e-42f;  // what is held may be written after others were asked for
      part.fill_(tie);
    }
    const MasterReader wanted = whole.read_master(), master = split.read_master();
    for (const char* name : {"q", "k", "norm"}) {
      CAPTURE(name);
      CHECK(master[name].equal(wanted[name]));
      CHECK(split.parameter(name).equal(whole.parameter(name)));
      CHECK((split.parameter(name).scalar_type() == whole.parameter(name).scalar_type()));
    }
    CHECK(master["k"][0][0].item<float>() == 1e-42f);
    CHECK(split.parameter("q")[1][2].item<float>() == -1.0078125f);
    CHECK(split.fused_parameter("q", "k").equal(whole.fused_parameter("q", "k")));
    CHECK_FALSE(split.unit_master(0).defined());
    CHECK_FALSE(whole.unit_remainder(0).defined());
    CHECK(split.unit_remainder(1).sizes() == at::IntArrayRef({16}));
    CHECK((split.unit_remainder(0).scalar_type() == at::kShort));
    {
      const MasterEditor again = split.edit_master();
      again["norm"].mul_(2);
    }
    CHECK(split.parameter("norm").equal(wanted["norm"] * 2));
    CHECK(reinterpret_cast<uintptr_t>(split.parameter("norm").const_data_ptr()) % 64 == 0);
    CHECK_THROWS_WITH_AS(ParameterArena(small_layout(), {.split_master = true}),
                         doctest::Contains("a split master has a working copy in bfloat16"), InternalError);
    // two runs of vectors, the first of two that are adjacent
    ParameterArena vectors({.entries = {{"a", {2}, 0, 2}, {"b", {3}, 2, 3}, {"w", {1, 3}, 16, 3}, {"c", {4}, 32, 4}},
                            .blocks = {{"ab", 0, 5, 1.0}, {"w", 16, 3, 1.0}, {"c", 32, 4, 1.0}},
                            .units = {{"layer", 0, 48}},
                            .size = 48},
                           {.compute = at::kBFloat16, .split_master = true});
    const at::Tensor ab = randn({5}, 4), c = randn({4}, 5);
    {
      const MasterEditor editor = vectors.edit_master();
      editor["a"].copy_(ab.narrow(0, 0, 2));
      editor["b"].copy_(ab.narrow(0, 2, 3));
      editor["c"].copy_(c);
    }
    CHECK(vectors.fused_parameter("a", "b").equal(ab));
    CHECK(vectors.parameter("c").equal(c));
  }

  TEST_CASE("ParameterArena: adjacent matrices fuse, others are refused") {
    ParameterArena arena(small_layout());
    arena.parameter("k").fill_(1.0);
    const at::Tensor fused = arena.fused_parameter("q", "k");
    CHECK(fused.sizes() == at::IntArrayRef({6, 3}));
    CHECK(fused.slice(0, 2).sum().item<float>() == 12.0f);
    CHECK(fused.const_data_ptr() == arena.unit_master(0).const_data_ptr());
    const ParameterArena vectors({.entries = {{"a", {2}, 0, 2}, {"b", {3}, 2, 3}},
                                  .blocks = {{"ab", 0, 5, 1.0}},
                                  .units = {{"layer", 0, 16}},
                                  .size = 16},
                                 {.compute = at::kBFloat16});
    CHECK(vectors.fused_parameter("a", "b").sizes() == at::IntArrayRef({5}));
    CHECK(dtype_name(vectors.fused_parameter("a", "b").scalar_type()) == "float32");  // of the master
    CHECK_THROWS_AS(arena.fused_parameter("k", "q"), InternalError);
    CHECK_THROWS_AS(arena.fused_parameter("q", "norm"), InternalError);
    CHECK_THROWS_WITH_AS(arena.entry("o"), doctest::Contains("no parameter 'o'"), InternalError);
  }

  TEST_CASE("ParameterArena: gradients of a fused weight land in the parts") {
    ParameterArena arena(small_layout());
    arena.enable_gradient();
    const at::Tensor x = randn({7, 3}, 1);
    coppice::linear(x, arena.fused_parameter("q", "k"), arena.fused_gradient("q", "k")).backward(at::ones({7, 6}));
    CHECK(max_error(arena.gradient_of("q"), x.sum(0, true).expand({2, 3})) < 1e-5);
    CHECK(max_error(arena.gradient_of("k"), x.sum(0, true).expand({4, 3})) < 1e-5);
    CHECK(arena.gradient_of("norm").abs().sum().item<float>() == 0.0f);
  }

  TEST_CASE(
      "ParameterArena: a layout that overlaps, overflows or lies about a size is our bug; too much memory is said with "
      "its size") {
    ArenaLayout layout = small_layout();
    layout.entries[1].offset = 5;
    CHECK_THROWS_AS(ParameterArena{layout}, InternalError);
    layout = small_layout();
    layout.entries[2].size = 4;
    CHECK_THROWS_AS(ParameterArena{layout}, InternalError);
    layout = small_layout();
    layout.size = 36;
    CHECK_THROWS_AS(ParameterArena{layout}, InternalError);
    layout = small_layout();
    layout.units[1].offset = 40;
    CHECK_THROWS_WITH_AS(ParameterArena{layout},
                         doctest::Contains("unit last: offset 40, the one before it ends at 32"), InternalError);
    layout = small_layout();
    layout.units.pop_back();
    CHECK_THROWS_WITH_AS(ParameterArena{layout}, doctest::Contains("units hold 32 elements of 48"), InternalError);
    layout = small_layout();
    layout.units = {{"layer", 0, 16}, {"last", 16, 32}};
    CHECK_THROWS_WITH_AS(ParameterArena{layout}, doctest::Contains("block qk reaches beyond unit layer"),
                         InternalError);
    layout = small_layout();
    layout.entries[1].name = layout.entries[0].name;
    CHECK_THROWS_AS(ParameterArena{layout}, InternalError);
    CHECK_THROWS_WITH_AS(ParameterArena(small_layout(), {.device = at::Device(at::kCUDA, 0)}),
                         "the model is on cuda:0, but this build has no CUDA kernels", DeviceError);
    try {
      ParameterArena arena({.units = {{.name = "all", .size = int64_t{1} << 58}}, .size = int64_t{1} << 58});
      FAIL("allocated 2^60 bytes");
    } catch (const DeviceError& error) {
      CHECK(error.code() == ExitCode::out_of_memory);
      CHECK(std::string(error.what()).find("1152921504606846976 bytes") != std::string::npos);
    }
  }
}
