#include "src/tensors/kernels/split_master.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "tests/kernels/every_schedule.h"
#include "tests/kernels/table_bytes.h"

using namespace coppice;

namespace {

constexpr Bf16 kBf16Sentinel{0x1234};
constexpr int16_t kSentinel = 0x1234;
constexpr int64_t kShift = 1;  // elements: a start between packs

/// Masters and their halves, with sentinels around.
struct Halves {
  int64_t size;
  std::vector<float> master;
  std::vector<Bf16> working;
  std::vector<int16_t> remainder;

  /// Some bits of every kind, no NaN among them: ties, the least and the largest of both signs, subnormal numbers.
  explicit Halves(int64_t size) : size(size) {
    constexpr uint32_t kSpecial[] = {0,          0x80000000, 1,          0x80000001, 0x7fff,     0x8000,
                                     0x007fffff, 0x00800000, 0x3f808000, 0x3f818000, 0xbf808000, 0x3f807fff,
                                     0x3f808001, 0x7f7fffff, 0xff7fffff, 0x7f7f8000, 0x7f800000, 0xff800000};
    for (int64_t i = 0; i < size; ++i)
      master.push_back(i % 3 == 0 ? std::bit_cast<float>(kSpecial[i / 3 % std::ssize(kSpecial)]) : number(i, 1));
    master.resize(static_cast<size_t>(size + 16), -77.5f);
    working.assign(master.size(), kBf16Sentinel), remainder.assign(master.size(), kSentinel);
  }

  SplitMastersParams split_params(bool with_remainder = true) {
    return {.master = master.data(),
            .working = working.data(),
            .remainder = with_remainder ? remainder.data() : nullptr,
            .size = size};
  }
  void split_plainly() {
    for (size_t i = 0; i < static_cast<size_t>(size); ++i) {
      const SplitMaster split = split_master(master[i]);
      working[i] = split.working, remainder[i] = split.remainder;
    }
  }
  /// Both halves as floats that keep their bits apart.
  Outputs outputs() const {
    Outputs outputs;
    for (size_t i = 0; i < working.size(); ++i) {
      outputs.push_back(working[i].bits);
      outputs.push_back(remainder[i]);
    }
    return outputs;
  }
};

/// Packs, a tail, a start between packs, less than a pack, several blocks.
constexpr int64_t kSizes[] = {4, 3, 64, 1001, kUnderRaceCheck ? 2064 : 5008};

}  // namespace

TEST_SUITE("kernel") {
  TEST_CASE("split_master: both halves are the master bit for bit, the working copy is its nearest bf16") {
    bool exact = true, nearest = true;
    const auto check = [&](uint32_t bits) {
      const float master = std::bit_cast<float>(bits);
      const SplitMaster split = split_master(master);
      if (std::isnan(master)) {
        exact = exact && std::isnan(to_float(split.working)) && std::isnan(join_master(split));
        return;
      }
      exact = exact && std::bit_cast<uint32_t>(join_master(split)) == bits;
      const bool tie = (bits & 0xffff) == 0x8000;
      nearest = nearest && (tie || split.working.bits == to_bf16(master).bits);
    };
    for (uint32_t high = 0; high < 0x10000; ++high)
      for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) check(high << 16 | low);
    for (uint32_t low = 0; low < 0x10000; ++low)
      for (const uint32_t high : {0u, 0x3f80u, 0x7f7fu, 0xbf81u, 0xff7fu}) check(high << 16 | low);
    CHECK(exact);
    CHECK(nearest);
  }

  TEST_CASE("split_masters: the halves of each, whoever runs first, on a device and on the CPU") {
    for (const int64_t size : kSizes)
      for (const bool with_remainder : {true, false}) {
        CAPTURE(size);
        Halves expected(size);
        expected.split_plainly();
        if (!with_remainder) expected.remainder.assign(expected.master.size(), kSentinel);
        check_every_schedule<float>(
            [&] {
              Halves halves(size);
              REQUIRE(emulated::split_masters(halves.split_params(with_remainder), nullptr) == 0);
              return halves.outputs();
            },
            expected.outputs());
        Halves by_loop(size);
        split_masters_cpu(by_loop.split_params(with_remainder));
        CHECK(same_bits(by_loop.outputs(), expected.outputs()));
      }
  }

  TEST_CASE("join_masters: the bits that were split, in a row or at places, whoever runs first") {
    for (const int64_t size : kSizes) {
      CAPTURE(size);
      Halves halves(size);
      halves.split_plainly();
      std::vector<int64_t> places;
      for (int64_t i = 0; i < size; ++i) places.push_back(i % 2 == 0 ? size - 1 - i : i);
      for (const bool at_places : {false, true}) {
        std::vector<float> expected(static_cast<size_t>(size), 0.0f);
        for (int64_t i = 0; i < size; ++i) expected[i] = halves.master[at_places ? places[i] : i];
        expected.resize(expected.size() + 16, kSentinel);
        const auto join = [&](const auto& run) {
          std::vector<float> joined(expected.size(), kSentinel);
          run(JoinMastersParams{.working = halves.working.data(),
                                .remainder = halves.remainder.data(),
                                .places = at_places ? places.data() : nullptr,
                                .master = joined.data(),
                                .size = size});
          return joined;
        };
        const auto kernel = [](const JoinMastersParams& params) {
          REQUIRE(emulated::join_masters(params, nullptr) == 0);
        };
        for (const executor::Schedule& schedule : kSchedules) {
          executor::set_schedule(schedule);
          CHECK(same_bits(join(kernel), expected));
          if (kUnderRaceCheck) break;
        }
        executor::set_schedule({});
        CHECK(same_bits(join(join_masters_cpu), expected));
      }
    }
  }

  TEST_CASE("split_masters, join_masters: buffers that start between packs") {
    Halves halves(1025), expected(1025);
    expected.split_plainly();
    SplitMastersParams params = halves.split_params();
    params.master += kShift, params.working += kShift, params.remainder += kShift, params.size -= kShift;
    REQUIRE(emulated::split_masters(params, nullptr) == 0);
    CHECK(halves.working[0].bits == kBf16Sentinel.bits);
    CHECK(halves.remainder[0] == kSentinel);
    halves.working[0] = expected.working[0], halves.remainder[0] = expected.remainder[0];
    CHECK(same_bits(halves.outputs(), expected.outputs()));
    std::vector<float> joined(1025, kSentinel);
    REQUIRE(emulated::join_masters({.working = halves.working.data() + kShift,
                                    .remainder = halves.remainder.data() + kShift,
                                    .master = joined.data() + kShift,
                                    .size = 1024},
                                   nullptr) == 0);
    CHECK(joined[0] == kSentinel);
    CHECK(std::memcmp(joined.data() + kShift, halves.master.data() + kShift, 1024 * sizeof(float)) == 0);
  }

  TEST_CASE("split_masters, join_masters: bytes are those of the table of costs") {
    Halves halves(4096);
    const KernelShape shape{.parameters = 4096};
    check_table_bytes(Kernel::split_masters, shape,
                      [&] { REQUIRE(emulated::split_masters(halves.split_params(), nullptr) == 0); });
    std::vector<float> joined(4096);
    check_table_bytes(Kernel::join_masters, shape, [&] {
      REQUIRE(emulated::join_masters({.working = halves.working.data(),
                                      .remainder = halves.remainder.data(),
                                      .master = joined.data(),
                                      .size = 4096},
                                     nullptr) == 0);
    });
  }
}
