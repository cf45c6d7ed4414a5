// The executor means what CUDA means, and sees every slip of the table in tests/executor/subjects.h in the way that is
// said there. A sanitized build sees some more: those cases are compiled there alone.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>
#include <set>

#include "tests/executor/problems.h"

using namespace coppice;
using executor::Fault;
using executor::Order;
using executor::Schedule;

namespace {

/// The outputs under one schedule; nothing where the launch ended in a Fault.
std::optional<Outputs> under(const Schedule& schedule, const std::function<Outputs()>& run, bool math_noise = false) {
  executor::set_schedule(schedule, math_noise);
  std::optional<Outputs> outputs;
  try {
    outputs = run();
  } catch (const Fault&) {
  }
  executor::set_schedule({});
  return outputs;
}

/// The orders under which a slip shows: other bits than without it, or a Fault.
std::set<Order> seen_under(const std::function<Outputs(Slip)>& run, Slip slip) {
  const Outputs right = run(Slip::none);
  std::set<Order> orders;
  for (const Schedule& schedule : kSchedules) {
    const auto outputs = under(schedule, [&] { return run(slip); });
    if (!outputs || !same_bits(*outputs, right)) orders.insert(schedule.order);
  }
  return orders;
}

/// The Fault of a slip in a small kernel, under the schedule in turn unless another one is given.
Fault fault_of(Slip slip, const Schedule& schedule = {}) {
  executor::set_schedule(schedule);
  std::optional<Fault> fault;
  try {
    run_small(slip);
  } catch (const Fault& caught) {
    fault = caught;
  }
  executor::set_schedule({});
  REQUIRE(fault.has_value());
  return *fault;
}

bool says(const Fault& fault, const std::string& part) {
  return std::string(fault.what()).find(part) != std::string::npos;
}

struct Death {
  int status = 0;  // exit code, or 128 + the signal
  std::string said;
};

/// Runs `body` in a child and keeps what it writes to standard error.
Death death_of(const std::function<void()>& body) {
  std::FILE* const file = std::tmpfile();
  REQUIRE(file != nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(::fileno(file), 2);
    ::signal(SIGSEGV, SIG_DFL);  // without doctest's word
    body();
    ::_exit(0);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  Death death{.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), .said = {}};
  std::rewind(file);
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) death.said.push_back(static_cast<char>(c));
  std::fclose(file);
  return death;
}

template <class Problem>
void check_every_schedule(const Problem& problem, double bound) {
  const std::vector<double> reference = problem.reference();
  const auto first = under(kSchedules.front(), [&] { return problem.run(Slip::none); });
  REQUIRE(first.has_value());
  CHECK(error_of(*first, reference) < bound);
  for (const Schedule& schedule : kSchedules) {
    const auto outputs = under(schedule, [&] { return problem.run(Slip::none); });
    REQUIRE(outputs.has_value());
    CHECK(same_bits(*outputs, *first));
  }
  const auto noisy = under(
      {Order::random, 3}, [&] { return problem.run(Slip::none); }, true);
  REQUIRE(noisy.has_value());
  if (bound < 1e-3) CHECK_FALSE(same_bits(*noisy, *first));  // bfloat16's rounding swallows it
  CHECK(error_of(*noisy, reference) < 2 * bound);
}

}  // namespace

TEST_SUITE("unit") {
  TEST_CASE("executor: real kernels equal their double references, with equal bits under every schedule") {
    check_every_schedule(NormProblem<float>(), 2e-6);
    check_every_schedule(NormProblem<Bf16>(), 0x1p-7);
    check_every_schedule(LabelProblem<float>(), 2e-6);
    check_every_schedule(LabelProblem<Bf16>(), 0x1p-7);
  }

  TEST_CASE("executor: thread, block and grid indices of three dimensions") {
    std::vector<int> out(12 * 1024, -1);
    REQUIRE(emulated::indices(out.data(), nullptr) == 0);
    for (int block = 0; block < 12; ++block)
      for (int thread = 0; thread < 1024; ++thread)
        REQUIRE(out[static_cast<size_t>(block * 1024 + thread)] == (thread < 24 ? block * 24 + thread : -1));
  }

  TEST_CASE("executor: warp operations give every lane what CUDA gives it") {
    std::vector<int> in(40), out(40 * 12);
    for (int i = 0; i < 40; ++i) in[static_cast<size_t>(i)] = (i * 37) % 41 - 20;
    for (const Schedule& schedule : kSchedules) {
      executor::set_schedule(schedule);
      REQUIRE(emulated::warp_operations(in.data(), out.data(), nullptr) == 0);
      for (int thread = 0; thread < 40; ++thread) {
        const int warp = thread / 32 * 32, lane = thread % 32, lanes = warp == 0 ? 32 : 8;
        const int *value = in.data() + warp, *got = out.data() + thread * 12;
        int positive = 0, sum = 0, least = value[0], of_half = -1000;
        unsigned largest = 0, bits = 0;
        bool seven = false;
        for (int i = 0; i < lanes; ++i) {
          positive |= static_cast<int>((value[i] > 0 ? 1u : 0u) << i);
          sum += value[i];
          least = std::min(least, value[i]);
          largest = std::max(largest, static_cast<unsigned>(value[i]));
          if (i % 2 == lane % 2) of_half = std::max(of_half, value[i]);
          seven = seven || value[i] == 7;
          bits |= 1u << i;
        }
        CHECK(got[0] == value[3]);
        CHECK(got[1] == value[lane ^ 5]);
        CHECK(got[2] == value[lane < 2 ? lane : lane - 2]);
        CHECK(got[3] == value[lane % 8 >= 6 ? lane : lane + 2]);
        CHECK(got[4] == positive);
        CHECK(got[5] == sum);
        CHECK(got[6] == least);
        CHECK(got[7] == static_cast<int>(largest));
        CHECK(got[8] == of_half);
        CHECK(got[9] == (seven ? 3 : 2));
        CHECK(got[10] == static_cast<int>(bits ^ ~0u ^ bits));
        int first_bit = 1;
        while (((value[lane] | 64) >> (first_bit - 1) & 1) == 0) ++first_bit;
        int zeros = 0;
        for (unsigned one = 1u + static_cast<unsigned>(lane); one >> 31 == 0; one <<= 1) ++zeros;
        CHECK(got[11] == lanes + first_bit + zeros);
      }
    }
    executor::set_schedule({});
  }

  TEST_CASE("executor: bytes are those of the formula") {
    executor::reset_counts();
    NormProblem<float>().run(Slip::none);
    constexpr int64_t kRows = NormProblem<float>::kRows, kSize = NormProblem<float>::kSize,
                      kBlocks = emulated::kNormBlocks;
    CHECK(executor::counts().bytes_loaded == kRows * 8 * kSize + kBlocks * 4 * kSize);
    CHECK(executor::counts().bytes_stored == kRows * 4 * kSize + kBlocks * 4 * kSize);
    CHECK(executor::counts().launches == 2);
    // A thread a launch, at least, and 32 a shuffle: 20 of them and 2 barriers a row.
    CHECK(executor::counts().switches >= kRows * kSize / 8 * 22);
    executor::reset_counts();
    LabelProblem<Bf16>().run(Slip::none);
    CHECK(executor::counts().bytes_loaded == 2 * LabelProblem<Bf16>::kRows * LabelProblem<Bf16>::kVocab);
    CHECK(executor::counts().bytes_stored == 2 * LabelProblem<Bf16>::kRows * LabelProblem<Bf16>::kVocab);
  }

  TEST_CASE("executor: noise stays within the documented errors, and is a function of argument and seed") {
    constexpr int kCount = 64;
    std::vector<float> in(kCount);
    for (int i = 0; i < kCount; ++i) in[static_cast<size_t>(i)] = 0.05f + 0.2f * static_cast<float>(i);
    const auto run = [&] {
      Outputs out(5 * kCount);
      emulated::approximate_functions(in.data(), out.data(), kCount, nullptr);
      return out;
    };
    const Outputs plain = *under({}, run), noisy = *under({Order::in_turn, 1}, run, true);
    CHECK(same_bits(noisy, *under({Order::eager_backwards, 1}, run, true)));
    CHECK_FALSE(same_bits(noisy, *under({Order::in_turn, 2}, run, true)));
    int num_off = 0;
    for (int i = 0; i < 5 * kCount; ++i) {
      const double x = in[static_cast<size_t>(i % kCount)];
      const double exact[] = {std::exp2(x), std::exp(x), 1.0 / x, 1.0 / std::sqrt(x), std::log2(x)};
      const double ulps[] = {2.0, 2.0 + std::floor(1.173 * x), 1.0, 2.0, 2.0};
      const int function = i / kCount;
      double ulp = std::ldexp(1.0, std::ilogb(exact[function]) - 23);
      if (function == 4 && x > 0.5 && x < 2.0) ulp = 0x1p-23;  // an absolute error there
      CHECK(std::fabs(plain[static_cast<size_t>(i)] - exact[function]) <= ulp);
      CHECK(std::fabs(noisy[static_cast<size_t>(i)] - exact[function]) <= (ulps[function] + 2) * ulp);
      num_off += plain[static_cast<size_t>(i)] != noisy[static_cast<size_t>(i)];
    }
    CHECK(num_off > 2 * kCount);
  }

  TEST_CASE("executor: approximate functions take subnormal numbers for zero, and give none") {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr int kCount = 5;
    const float in[kCount] = {0x1p-130f, -0x1p-130f, -130.0f, -126.0f, 0x1p127f};
    Outputs out(5 * kCount);
    emulated::approximate_functions(in, out.data(), kCount, nullptr);
    const float* const exp2 = out.data();
    CHECK(exp2[2] == 0.0f);
    CHECK(exp2[3] == 0x1p-126f);
    const float *const reciprocal = out.data() + 2 * kCount, *const log2 = out.data() + 4 * kCount;
    CHECK(reciprocal[0] == kInfinity);
    CHECK(reciprocal[1] == -kInfinity);
    CHECK(reciprocal[4] == 0.0f);
    CHECK(log2[0] == -kInfinity);
    CHECK(log2[4] == 127.0f);
  }

  TEST_CASE("executor: bfloat16 rounds to nearest, ties to even") {
    for (const auto& [value, bits] : std::vector<std::pair<float, uint16_t>>{{1.0f, 0x3f80},
                                                                             {1.00390625f, 0x3f80},  // a tie: down
                                                                             {1.01171875f, 0x3f82},  // a tie: up
                                                                             {1.00390637f, 0x3f81},  // just above one
                                                                             {-3.0e38f, 0xff62},
                                                                             {3.4e38f, 0x7f80},
                                                                             {0x1p-133f, 0x0001}}) {
      CHECK(to_bf16(value).bits == bits);
    }
    CHECK(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
    for (uint32_t bits = 0; bits < 0x7f80; ++bits)
      REQUIRE(to_bf16(to_float(Bf16{static_cast<uint16_t>(bits)})).bits == bits);
  }
}

TEST_SUITE("faults") {
  TEST_CASE("executor: races show as other bits or a Fault under some schedule") {
    const auto norm = [](Slip slip) { return NormProblem<float>().run(slip); };
    const auto labels = [](Slip slip) { return LabelProblem<float>().run(slip); };
    CHECK_FALSE(seen_under(norm, Slip::no_barrier_in_reduction).empty());
    CHECK_FALSE(seen_under(labels, Slip::no_barrier_after_staging).empty());
    CHECK_FALSE(seen_under(labels, Slip::no_barrier_before_join).empty());
    CHECK_FALSE(seen_under(run_small, Slip::no_syncwarp).empty());
    CHECK_FALSE(seen_under(run_small, Slip::blocks_write_one_place).empty());
    CHECK(seen_under(norm, Slip::none).empty());
    CHECK(seen_under(labels, Slip::none).empty());
    CHECK(seen_under(run_small, Slip::none).empty());
  }

  TEST_CASE("executor: a scratch written before all have read it shows where a warp runs ahead, and in turn never") {
    const auto orders =
        seen_under([](Slip slip) { return NormProblem<float>().run(slip); }, Slip::one_scratch_for_two_reductions);
    CHECK((orders.contains(Order::eager) || orders.contains(Order::eager_backwards)));
    CHECK_FALSE(orders.contains(Order::in_turn));
    CHECK_FALSE(orders.contains(Order::in_turn_backwards));
  }

#ifndef __SANITIZE_ADDRESS__
  TEST_CASE("executor: what lies behind a row shows in the result or is no longer what it was") {
    LabelProblem<float> problem;
    problem.behind = 16;
    CHECK(error_of(problem.run(Slip::none), problem.reference()) < 2e-6);
    CHECK(error_of(problem.run(Slip::load_past_row), problem.reference()) > 1.0);
    CHECK(error_of(problem.run(Slip::store_past_row), problem.reference()) > 0.9);
    CHECK_FALSE(seen_under([&](Slip slip) { return problem.run(slip); }, Slip::store_past_row).empty());
  }
#endif

  TEST_CASE("executor: a wrong label has equal bits under every schedule, and the reference sees it") {
    const LabelProblem<float> problem;
    const Outputs wrong = problem.run(Slip::label_off_by_one);
    for (const Schedule& schedule : kSchedules)
      CHECK(same_bits(*under(schedule, [&] { return problem.run(Slip::label_off_by_one); }), wrong));
    CHECK(error_of(wrong, problem.reference()) > 0.1);
  }

  TEST_CASE("executor: an offset of 32 bits shows in the last block of 50,000 rows of 49,152, alone") {
    constexpr int64_t kRows = 50'000, kVocab = 49'152, kBytes = 2 * kRows * kVocab;
    static_assert(kRows * kVocab > int64_t{1} << 31);
    // Address space that nobody may touch, but for the last row; as much in front of it for offsets below zero.
    const auto map_last_row = [] {
      auto* const map = static_cast<char*>(
          ::mmap(nullptr, 2 * kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
      REQUIRE(map != MAP_FAILED);
      REQUIRE(::mprotect(map + 2 * kBytes - 2 * kVocab, 2 * kVocab, PROT_READ | PROT_WRITE) == 0);
      return reinterpret_cast<Bf16*>(map + kBytes);
    };
    static_assert(2 * kVocab % 4096 == 0);
    Bf16 *const logits = map_last_row(), *const grad = map_last_row();
    const std::vector<Bf16> row = numbers<Bf16>(kVocab, 9, 4.0f);
    std::memcpy(logits + (kRows - 1) * kVocab, row.data(), 2 * kVocab);
    std::vector<int64_t> label(kRows, 3);
    std::vector<float> loss(kRows);
    const auto run = [&](Slip slip) {
      executor::run_only_last_block(true);
      emulated::label_rows<Bf16>({.logits = logits,
                                  .label = label.data(),
                                  .teacher = label.data(),
                                  .grad = grad,
                                  .loss = loss.data(),
                                  .num_rows = kRows,
                                  .vocab_size = kVocab,
                                  .teacher_weight = 0.5f},
                                 slip, nullptr);
      executor::run_only_last_block(false);
    };
    run(Slip::none);
    double sum = 0.0;
    for (const Bf16 value : row) sum += std::exp(double{to_float(value)});
    CHECK(std::fabs(loss.back() - (std::log(sum) - to_float(row[3]))) < 1e-4);
    CHECK(loss.front() == 0.0f);
    CHECK(std::fabs(to_float(grad[kRows * kVocab - 1]) - std::exp(double{to_float(row.back())}) / sum) < 1e-6);
    const int status = death_of([&] { run(Slip::offset_in_32_bits); }).status;
#ifdef __SANITIZE_ADDRESS__
    CHECK(status != 0);
#else
    CHECK(status == 128 + SIGSEGV);
#endif
    ::munmap(reinterpret_cast<char*>(logits) - kBytes, 2 * kBytes);
    ::munmap(reinterpret_cast<char*>(grad) - kBytes, 2 * kBytes);
  }

  TEST_CASE("executor: faults name the line") {
    struct Row {
      Slip slip;
      const char* mark;
      const char* says;
    };
    for (const Row& row : std::initializer_list<Row>{
             {Slip::misaligned_pack, "misaligned_pack", "no multiple of 16"},
             {Slip::barrier_in_one_warp, "barrier_in_one_warp", "has left the kernel without it"},
             {Slip::two_barriers, "two_barriers", "two barriers at once: 32 threads wait"},
             {Slip::lane_gone_before_shuffle, "lane_gone_before_shuffle", "lane 5"},
             {Slip::thread_gone_before_barrier, "thread_gone_before_barrier", "thread 40"},
             {Slip::mask_without_caller, "mask_without_caller", "does not name its caller, lane 31"},
             {Slip::mask_of_lanes_that_do_not_exist, "mask_of_lanes_that_do_not_exist", "this warp has 8"},
             {Slip::read_outside_mask, "read_outside_mask", "reads lane 16"},
             {Slip::two_operations_with_one_mask, "two_operations_with_one_mask",
              "waits with the same mask in __shfl_sync"},
             {Slip::width_of_twelve, "width_of_twelve", "groups of 12 lanes"},
         }) {
      CAPTURE(row.mark);
      const Fault fault = fault_of(row.slip);
      const unsigned line = line_of("small_kernels.cu", std::string("fault: ") + row.mark);
      REQUIRE(line > 0);
      CHECK(fault.line == line);
      CHECK(fault.file.ends_with("tests/executor/small_kernels.cu"));
      CHECK_MESSAGE(says(fault, row.says), fault.what());
      CHECK(says(fault, "small_kernels.cu:" + std::to_string(line) + ": "));
      for (const Schedule& schedule : kSchedules)
        CHECK(fault_of(row.slip, schedule).file.ends_with("tests/executor/small_kernels.cu"));
      CHECK(seen_under(run_small, Slip::none).empty());  // nothing is left of the launch
    }
  }

  TEST_CASE("executor: a wait that nobody ends says who waits where") {
    const Fault fault = fault_of(Slip::waits_for_each_other);
    CHECK(says(fault, "a wait that nobody ends"));
    CHECK(says(fault, "1 of 2 lanes of warp 0 wait in __syncwarp at "));
    CHECK(says(fault, "1 of 3 lanes of warp 0 wait in __syncwarp at "));
    CHECK(
        says(fault, "small_kernels.cu:" + std::to_string(line_of("small_kernels.cu", "fault: waits_for_each_other"))));
  }

  TEST_CASE("executor: launches that a device refuses") {
    const auto refusal = [](int64_t grid_x, int64_t grid_y, int64_t block_x, int64_t block_z, int64_t shared_bytes) {
      try {
        emulated::launch_of(grid_x, grid_y, block_x, block_z, shared_bytes, nullptr);
      } catch (const Fault& fault) {
        CHECK(fault.file.ends_with("small_kernels.cu"));
        return std::string(fault.what());
      }
      return std::string();
    };
    const auto refused = [&](const std::string& why, const std::string& text) {
      CHECK_MESSAGE(text.find("a device refuses this launch: ") != std::string::npos, text);
      CHECK_MESSAGE(text.find(why) != std::string::npos, text);
    };
    CHECK(refusal(2, 2, 1024, 1, 227 * 1024).empty());
    CHECK(refusal(1, 1, 16, 64, 0).empty());
    refused("2048 x 1 x 1 threads", refusal(1, 1, 2048, 1, 0));
    refused("32 x 1 x 64 threads", refusal(1, 1, 32, 64, 0));
    refused("1 x 1 x 65 threads", refusal(1, 1, 1, 65, 0));
    refused("0 x 1 x 1 threads", refusal(1, 1, 0, 1, 0));
    refused("0 x 1 x 1 blocks", refusal(0, 1, 32, 1, 0));
    refused("2147483648 x 1 x 1 blocks", refusal(int64_t{1} << 31, 1, 32, 1, 0));
    refused("1 x 65536 x 1 blocks", refusal(1, 65536, 32, 1, 0));
    refused("232449 bytes", refusal(1, 1, 32, 1, 227 * 1024 + 1));
  }

  TEST_CASE(
      "executor: more than 48 KiB of shared memory in all, arrays included, where the launch has not asked for it") {
    CHECK(emulated::wide_array_beside(28 * 1024, nullptr) == 0);  // 20 KiB in an array
    CHECK_THROWS_WITH_AS(emulated::wide_array_beside(28 * 1024 + 4, nullptr),
                         doctest::Contains("48 where its dynamic part is 32 or less"), Fault);
    CHECK(emulated::wide_array_beside(33 * 1024, nullptr) == 0);
    CHECK(emulated::wide_array_beside(207 * 1024, nullptr) == 0);
    CHECK_THROWS_AS(emulated::wide_array_beside(208 * 1024, nullptr), Fault);
  }

  TEST_CASE("executor: shared memory nobody has written is NaN, also behind its end") {
    CHECK(std::isnan(run_small(Slip::unwritten_shared)[0]));
#ifndef __SANITIZE_ADDRESS__
    CHECK(std::isnan(run_small(Slip::read_past_dynamic_shared)[0]));
#endif
  }

#ifndef __SANITIZE_ADDRESS__
  TEST_CASE("executor: a write beside an array in shared memory") {
    const Fault of_array = fault_of(Slip::write_past_static_shared);
    CHECK(says(of_array, "a write beside this array of 256 bytes in shared memory"));
    CHECK(of_array.line == line_of("small_kernels.cu", "63 elements") - 1);
    CHECK(says(fault_of(Slip::write_past_dynamic_shared), "a write beside the dynamic array of 252 bytes"));
  }

  TEST_CASE("executor: a stack that runs over ends at its guard page") {
    CHECK(death_of([] { run_small(Slip::stack_overflow); }).status == 128 + SIGSEGV);
  }
#else
  TEST_CASE("executor: AddressSanitizer names the line of an access outside") {
    const auto dies_at = [](const char* file, const std::string& mark, const std::function<void()>& body) {
      const unsigned line = line_of(file, mark);
      REQUIRE(line > 0);
      const Death death = death_of(body);
      CHECK(death.status != 0);
      CHECK_MESSAGE(death.said.find(std::string(file) + ":" + std::to_string(line)) != std::string::npos, death.said);
    };
    const LabelProblem<float> problem;
    dies_at("label_rows.cu", "past the row", [&] { problem.run(Slip::load_past_row); });
    dies_at("label_rows.cu", "past the next row", [&] { problem.run(Slip::store_past_row); });
    dies_at("small_kernels.cu", "past the static array", [] { run_small(Slip::write_past_static_shared); });
    dies_at("small_kernels.cu", "past the dynamic array", [] { run_small(Slip::write_past_dynamic_shared); });
    CHECK(death_of([] { run_small(Slip::read_past_dynamic_shared); }).status != 0);
    dies_at("small_kernels.cu", "misaligned, and no load_pack to see it", [] { run_small(Slip::misaligned_pointer); });
  }
#endif
}
