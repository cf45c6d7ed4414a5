// What every kernel has to hold: the reference's result, with equal bits whoever runs first, and no further from it
// than its approximate functions may be. Torch-free.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <type_traits>
#include <vector>

#include "tests/executor/outputs.h"

namespace coppice {

/// A switch costs twenty times as much there: shapes have to be small.
#ifdef COPPICE_RACE_CHECK
inline constexpr bool kUnderRaceCheck = true;
#else
inline constexpr bool kUnderRaceCheck = false;
#endif

/// T: the kernel's element type. float: within 2e-6 of the reference; Bf16: within one rounding.
template <class T>
void check_every_schedule(const std::function<Outputs()>& run, const Outputs& reference) {
  const double bound = std::is_same_v<T, float> ? 2e-6 : 0x1p-8;
  const std::vector<double> expected(reference.begin(), reference.end());
  executor::set_schedule({});
  const Outputs first = run();
  CHECK(error_of(first, expected) < bound);
  if (kUnderRaceCheck) return;  // one schedule is enough for who happens before whom
  for (const executor::Schedule& schedule : kSchedules) {
    executor::set_schedule(schedule);
    CHECK(same_bits(run(), first));
  }
  executor::set_schedule({executor::Order::in_turn, 1}, true);
  CHECK(error_of(run(), expected) < 2 * bound);
  executor::set_schedule({});
}

/// The same of a kernel and its reference: outputs_of<T>(run) hands `run` parameters of T, the same numbers for every
/// T, and returns what it leaves. The kernel is asked for T, the reference for float.
template <class T, class OutputsOf, class Kernel, class Reference>
void check_every_schedule(const OutputsOf& outputs_of, const Kernel& kernel, const Reference& reference) {
  const auto run = [&](const auto& params) { REQUIRE(kernel(params, nullptr) == 0); };
  check_every_schedule<T>([&] { return outputs_of.template operator()<T>(run); },
                          outputs_of.template operator()<float>(reference));
}

}  // namespace coppice
