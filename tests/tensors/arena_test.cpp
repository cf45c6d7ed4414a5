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
          .size = 48};
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("ParameterArena: parameters and gradients are views of one buffer each") {
    ParameterArena arena(small_layout());
    CHECK(arena.master().numel() == 48);
    CHECK(arena.master().abs().max().item<float>() == 0.0f);
    CHECK(reinterpret_cast<uintptr_t>(arena.master().const_data_ptr()) % 64 == 0);
    arena.parameter("k").detach().fill_(2.0);
    CHECK(arena.master().sum().item<float>() == 24.0f);
    CHECK(arena.parameter(1).sizes() == at::IntArrayRef({4, 3}));
    CHECK_FALSE(arena.parameter("k").requires_grad());
    CHECK_FALSE(arena.has_gradient());
    CHECK_THROWS_AS(arena.gradient_of("k"), InternalError);

    arena.enable_gradient();
    CHECK(arena.parameter("k").requires_grad());
    CHECK(arena.parameter("k").is_leaf());
    arena.gradient_of("norm").fill_(1.0);
    CHECK(arena.gradient().sum().item<float>() == 5.0f);
    arena.zero_gradient();
    CHECK(arena.gradient().sum().item<float>() == 0.0f);
  }

  TEST_CASE("ParameterArena: adjacent matrices fuse, others are refused") {
    ParameterArena arena(small_layout());
    arena.parameter("k").fill_(1.0);
    const at::Tensor fused = arena.fused_parameter("q", "k");
    CHECK(fused.sizes() == at::IntArrayRef({6, 3}));
    CHECK(fused.slice(0, 2).sum().item<float>() == 12.0f);
    CHECK(fused.const_data_ptr() == arena.master().const_data_ptr());
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
    layout.entries[1].name = layout.entries[0].name;
    CHECK_THROWS_AS(ParameterArena{layout}, InternalError);
    CHECK_THROWS_WITH_AS(ParameterArena(small_layout(), at::Device(at::kCUDA, 0)),
                         "the model is on cuda:0, but this build has no CUDA kernels", DeviceError);
    try {
      ParameterArena arena({.entries = {}, .blocks = {}, .size = int64_t{1} << 58});
      FAIL("allocated 2^60 bytes");
    } catch (const DeviceError& error) {
      CHECK(error.code() == ExitCode::out_of_memory);
      CHECK(std::string(error.what()).find("1152921504606846976 bytes") != std::string::npos);
    }
  }
}
