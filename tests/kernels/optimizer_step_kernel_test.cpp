#include "src/tensors/kernels/optimizer_step.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "tests/kernels/every_schedule.h"
#include "tests/kernels/optimizer_problem.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

/// Norms, a fused q, k, v, a matrix that starts between packs, blocks below, at and above a cell, one of many.
Layout awkward_layout() {
  Layout layout;
  for (const int64_t size : {1, 15, 16}) layout.add({size});
  layout.add({511, 33, 513});
  layout.add({2049});
  layout.add({2047}, true);
  layout.add({kUnderRaceCheck ? 4096 : 24'576});
  layout.add({6001});
  return layout;
}

void step(const OptimizerKernelParams& params, Rule rule) {
  REQUIRE(emulated::optimizer_square_sums(params, nullptr) == 0);
  REQUIRE(emulated::optimizer_vote(params, nullptr) == 0);
  if (rule == Rule::adastar) {
    REQUIRE(emulated::adastar_square_sums(params, nullptr) == 0);
    REQUIRE(emulated::adastar_inverse_rms(params, nullptr) == 0);
    REQUIRE(emulated::adastar_move(params, nullptr) == 0);
  } else {
    REQUIRE(emulated::adamw_move(params, nullptr) == 0);
  }
}

/// Two steps of the kernels.
Outputs train(Rule rule, Master master) {
  Training training(awkward_layout(), master);
  for (const int64_t end = training.t + 2; training.t < end; ++training.t) {
    training.draw_gradient();
    step(training.params(), rule);
    CHECK(training.vote[2] == 1.0);
  }
  training.check_buffers();
  return training.parameters(training.theta, training.v, training.m);
}

Outputs train_reference(Rule rule) {
  Training training(awkward_layout(), Master::alone);
  for (const int64_t end = training.t + 2; training.t < end; ++training.t) {
    training.draw_gradient();
    training.step_reference(rule);
  }
  return training.parameters(training.theta64, training.v64, training.m64);
}

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("optimizer_step: equals the reference with equal bits under every schedule") {
    for (const Rule rule : {Rule::adastar, Rule::adamw}) {
      CAPTURE(static_cast<int>(rule));
      const Outputs reference = train_reference(rule);
      check_every_schedule<float>([&] { return train(rule, Master::with_copy); }, reference);
      if (kUnderRaceCheck) continue;
      // who holds the master, and how, changes no bit of it
      CHECK(same_bits(train(rule, Master::alone), train(rule, Master::with_copy)));
      check_every_schedule<float>([&] { return train(rule, Master::split); }, train(rule, Master::alone));
      CHECK(same_bits(train(rule, Master::split), train(rule, Master::alone)));
    }
  }

  TEST_CASE("optimizer_step: a working copy is the half of a split master, in ties as well") {
    for (const Rule rule : {Rule::adastar, Rule::adamw}) {
      Layout layout;
      layout.add({2050});
      layout.rows[0].multiplier = layout.rows[0].decay = 0.0;  // theta stays
      const auto working_of = [&](Master master) {
        Training training(layout, master);
        for (int64_t i = 0; i < 2050; ++i) {
          const auto at = static_cast<size_t>(i);
          training.theta[at] = 1.0f + static_cast<float>(2 * i + 1) * 0x1p-8f;  // halfway between two of bf16
          if (master != Master::split) continue;
          const SplitMaster split = split_master(training.theta[at]);
          training.working[at] = split.working, training.remainder[at] = split.remainder;
        }
        training.draw_gradient();
        step(training.params(), rule);
        training.check_buffers();
        Outputs working;
        append(working, training.working);
        return working;
      };
      CHECK(same_bits(working_of(Master::with_copy), working_of(Master::split)));
    }
  }

  TEST_CASE("optimizer_step: norm and clip in double, inverse rms of every block at most 1") {
    Training training(awkward_layout(), Master::alone);
    training.draw_gradient();
    training.step_reference(Rule::adastar);
    step(training.params(), Rule::adastar);
    CHECK(std::fabs(training.vote[1] / training.norm64 - 1.0) < 1e-13);
    CHECK(training.norm64 > 40.0);
    CHECK(training.scalars.clip == 40.0 / (training.vote[1] + 1e-8));
    const auto [least, most] = std::ranges::minmax(training.block_values);
    CHECK(least < 0.9);
    CHECK(most == 1.0);
  }

  TEST_CASE("optimizer_step: a skipped step zeroes the gradient and leaves everything else") {
    struct Case {
      float first;  // of the gradient
      double not_finite;
      double drop_grad_norm;
      double grad_norm;  // NaN, infinite or a number
      bool applied;
    };
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    for (const Case& c : std::initializer_list<Case>{{60.0f, 0.0, 100.0, 100.0, false},
                                                     {60.0f, 0.0, 100.1, 100.0, true},
                                                     {60.0f, 1.0, 1000.0, 100.0, false},
                                                     {3e38f, 0.0, 1000.0, double{3e38f}, false},
                                                     {kInfinity, 0.0, kInfinity, kInfinity, false},
                                                     {std::nanf(""), 0.0, kInfinity, std::nan(""), false}}) {
      CAPTURE(c.first);
      CAPTURE(c.drop_grad_norm);
      for (const Rule rule : {Rule::adastar, Rule::adamw}) {
        for (const Master master : {Master::with_copy, Master::split}) {
          Layout layout;
          layout.add({3}), layout.add({2500});
          Training training(layout, master);
          const Training before = training;
          std::ranges::fill(training.gradient, std::nanf(""));
          for (size_t i = 0; i < training.inside.size(); ++i)
            if (training.inside[i]) training.gradient[i] = 0.0f;
          training.gradient[1] = c.first;
          training.gradient[2515] = 80.0f;  // the last
          training.drop_grad_norm = c.drop_grad_norm, training.vote[0] = c.not_finite;
          const OptimizerKernelParams params = training.params();
          step(params, rule);
          CHECK((training.vote[1] == c.grad_norm || (std::isnan(c.grad_norm) && std::isnan(training.vote[1]))));
          CHECK(training.vote[2] == (c.applied ? 1.0 : 0.0));
          CHECK(same_bits(training.v, before.v) == !c.applied);
          CHECK(same_bits(training.m, before.m) == !c.applied);
          CHECK((same_bits(training.theta, before.theta) && training.remainder == before.remainder) == !c.applied);
          bool zero = true;
          for (size_t i = 0; i < training.inside.size(); ++i)
            zero = zero && (training.inside[i] ? training.gradient[i] == 0.0f : std::isnan(training.gradient[i]));
          CHECK(zero);
        }
      }
    }
  }

  TEST_CASE("optimizer_step: buffers that start between packs") {
    Layout layout;
    layout.add({4100});
    Training training(layout, Master::alone);
    training.draw_gradient();
    training.step_reference(Rule::adastar);
    OptimizerKernelParams params = training.params();
    std::vector<float> shifted(training.theta.size() + 1);
    std::ranges::copy(training.theta, shifted.begin() + 1);
    params.theta = shifted.data() + 1;
    step(params, Rule::adastar);
    const std::vector<float> theta(shifted.begin() + 1, shifted.end());
    const Outputs expected = training.parameters(training.theta64, training.v64, training.m64);
    CHECK(error_of(training.parameters(theta, training.v, training.m), {expected.begin(), expected.end()}) < 2e-6);
  }

  TEST_CASE("optimizer_step: bytes are those of the table of costs; a skipped step moves the gradient alone") {
    Layout layout;
    layout.add({8192}), layout.add({3, 2048});
    for (const Master master : {Master::alone, Master::with_copy, Master::split}) {
      Training training(layout, master);
      training.draw_gradient();
      const OptimizerKernelParams params = training.params();
      const KernelShape shape{.parameters = 8192 + 3 + 2048,
                              .pieces = 4 + 3,
                              .blocks = 2,
                              .element_bytes = master == Master::alone ? 4 : 2};
      REQUIRE(params.num_pieces == shape.pieces);
      using Phase = int (*)(const OptimizerKernelParams&, CUstream_st*);
      const auto check = [&](Phase run, Kernel kernel) {
        check_table_bytes(kernel, shape, [&] { REQUIRE(run(params, nullptr) == 0); });
      };
      const bool split = master == Master::split;
      check(emulated::optimizer_square_sums, Kernel::optimizer_square_sums);
      check(emulated::optimizer_vote, Kernel::optimizer_vote);
      check(emulated::adastar_square_sums, Kernel::adastar_square_sums);
      check(emulated::adastar_inverse_rms, Kernel::adastar_inverse_rms);
      check(emulated::adastar_move, split ? Kernel::adastar_move_split : Kernel::adastar_move);
      check(emulated::adamw_move, split ? Kernel::adamw_move_split : Kernel::adamw_move);
      *params.applied = 0.0;
      for (const Phase run : {emulated::adastar_square_sums, emulated::adastar_move, emulated::adamw_move}) {
        executor::reset_counts();
        REQUIRE(run(params, nullptr) == 0);
        CHECK(executor::counts().bytes_loaded == 0);
        CHECK(executor::counts().bytes_stored == (run == emulated::adastar_square_sums ? 0 : 4 * shape.parameters));
      }
    }
  }

  TEST_CASE("optimizer_step: the last pieces of 4.3e9 elements, alone") {
    // A block of 16 pieces behind address space that nobody may touch: offsets beyond 32 bits, in elements and bytes.
    constexpr int64_t kLargeCell = 8192, kPieces = (int64_t{1} << 32) / kLargeCell + 16, kLast = 16 * kLargeCell,
                      kSize = kPieces * kLargeCell;
    std::vector<OptimizerPiece> pieces;
    append_pieces(pieces, 0, kSize, kLargeCell, 0, 0);
    REQUIRE(static_cast<int64_t>(pieces.size()) == kPieces);
    Layout layout;  // the same elements where the reference has them
    layout.add({kLast});
    Training small(layout, Master::with_copy);
    small.draw_gradient();
    OptimizerBlockRow row = layout.rows[0];
    row.first_piece = kPieces - 16, row.num_pieces = 16;
    OptimizerKernelParams params = small.params();
    params.pieces = pieces.data(), params.num_pieces = kPieces, params.blocks = &row;
    std::vector<double> sums(pieces.size(), -1.0);
    params.sums = sums.data();
    std::vector<std::pair<void*, size_t>> maps;
    const auto map_last = [&]<class T>(T*& small_buffer) {
      constexpr size_t kBytes = sizeof(T) * kSize, kLastBytes = sizeof(T) * kLast;
      static_assert(kLastBytes % 4096 == 0);
      auto* const map =
          static_cast<char*>(::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
      REQUIRE(map != MAP_FAILED);
      maps.emplace_back(map, kBytes);
      REQUIRE(::mprotect(map + kBytes - kLastBytes, kLastBytes, PROT_READ | PROT_WRITE) == 0);
      std::memcpy(map + kBytes - kLastBytes, small_buffer, kLastBytes);
      small_buffer = reinterpret_cast<T*>(map);
    };
    map_last(params.theta), map_last(params.gradient), map_last(params.v), map_last(params.m), map_last(params.working);
    small.step_reference(Rule::adastar);
    executor::run_only_last_block(true);
    step(params, Rule::adastar);
    executor::run_only_last_block(false);
    const auto last = [&](const float* values) { return std::vector<float>(values + kSize - kLast, values + kSize); };
    Outputs outputs;
    append(outputs, last(params.theta)), append(outputs, last(params.v)), append(outputs, last(params.m));
    const Outputs expected = small.parameters(small.theta64, small.v64, small.m64);
    CHECK(error_of(outputs, {expected.begin(), expected.end()}) < 2e-6);
    CHECK(std::ranges::count(sums, -1.0) == kPieces - 16);
    CHECK(params.working[kSize - 1].bits == to_bf16(params.theta[kSize - 1]).bits);
    for (const auto& [map, size] : maps) ::munmap(map, size);
  }
}
