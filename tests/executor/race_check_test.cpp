// Every thread of a block is a thread to ThreadSanitizer, and only launches, __syncthreads and __syncwarp order them:
// it must be silent about what is right and name both lines of every seeded race, whatever the schedule.
// Torch-free and without OpenMP: ThreadSanitizer sees neither.
#include <doctest/doctest.h>
#include <sanitizer/common_interface_defs.h>

#include <functional>
#include <set>
#include <string>

#include "tests/executor/problems.h"

extern "C" {
int __tsan_get_report_mop(void* report, unsigned long index, int* thread, void** address, int* size, int* write,
                          int* atomic, void** trace, unsigned long trace_size);
const char* __tsan_default_options();
void __tsan_on_report(void* report);
}

using namespace coppice;
using executor::Order;

namespace {

// Code that reports name. Written while a report is made: no heap, and nothing that could be one more race.
void* racing[256];
int num_racing = 0;

/// file:line of the code that was reported, of the innermost frame in a .cu.
std::set<std::string> reported_by(const std::function<void()>& body) {
  num_racing = 0;
  body();
  std::set<std::string> lines;
  for (int i = 0; i < num_racing; ++i) {
    char text[4096] = {};
    __sanitizer_symbolize_pc(static_cast<char*>(racing[i]) - 1, "%s:%l", text, sizeof(text) - 1);
    for (const char* frame = text; *frame != '\0'; frame += std::strlen(frame) + 1)
      if (const std::string line(frame); line.find(".cu:") != std::string::npos) {
        lines.insert(line.substr(line.rfind('/') + 1));
        break;
      }
  }
  return lines;
}

std::set<std::string> reported_by(const std::function<void()>& body, const executor::Schedule& schedule) {
  return reported_by([&] {
    executor::set_schedule(schedule);
    try {
      body();
    } catch (const executor::Fault&) {  // threads that disagree about a loop because of the race
    }
    executor::set_schedule({});
  });
}

std::string at(const std::string& file, const std::string& mark) {
  return file + ":" + std::to_string(line_of(file, mark));
}

}  // namespace

/// Two kernels have their shared memory at one address: a race of each is to be told.
const char* __tsan_default_options() { return "exitcode=0:suppress_equal_addresses=0"; }

__attribute__((no_sanitize("thread"))) void __tsan_on_report(void* report) {
  for (unsigned long access = 0; access < 2; ++access) {
    void* trace[1] = {};
    int thread = 0, size = 0, write = 0, atomic = 0;
    void* address = nullptr;
    __tsan_get_report_mop(report, access, &thread, &address, &size, &write, &atomic, trace, 1);
    if (trace[0] != nullptr && num_racing < 256) racing[num_racing++] = trace[0];
  }
}

TEST_SUITE("race") {
  TEST_CASE("race check: nothing to say about kernels that are right") {
    for (const executor::Schedule& schedule :
         {executor::Schedule{Order::in_turn}, executor::Schedule{Order::random, 1}}) {
      CHECK(reported_by([] { NormProblem<float>().run(Slip::none); }, schedule).empty());
      CHECK(reported_by([] { LabelProblem<Bf16>().run(Slip::none); }, schedule).empty());
      CHECK(reported_by([] { run_small(Slip::none); }, schedule).empty());
    }
  }

  TEST_CASE("race check: both lines of every seeded race, in one schedule") {
    __sanitizer_set_report_path("/dev/null");  // they are expected
    struct Row {
      const char* file;
      const char* one;
      const char* other;
      std::function<void()> run;
    };
    for (const Row& row : std::initializer_list<Row>{
             {"norm_backward.cu", "race: reduction writes", "race: reduction reads",
              [] { NormProblem<float>().run(Slip::no_barrier_in_reduction); }},
             {"norm_backward.cu", "race: reduction writes", "race: reduction reads",
              [] { NormProblem<float>().run(Slip::one_scratch_for_two_reductions); }},
             {"label_rows.cu", "race: staging writes", "race: staging reads",
              [] { LabelProblem<float>().run(Slip::no_barrier_after_staging); }},
             {"label_rows.cu", "race: join writes", "race: join reads",
              [] { LabelProblem<float>().run(Slip::no_barrier_before_join); }},
             {"label_rows.cu", "race: neighbour's row", "past the next row",
              [] { LabelProblem<float>().run(Slip::store_past_row); }},
             {"small_kernels.cu", "race: warp writes", "race: warp reads", [] { run_small(Slip::no_syncwarp); }},
             {"small_kernels.cu", "race: one place", "race: one place",
              [] { run_small(Slip::blocks_write_one_place); }},
         }) {
      CAPTURE(std::string(row.one));
      REQUIRE(line_of(row.file, row.one) > 0);
      REQUIRE(line_of(row.file, row.other) > 0);
      const std::set<std::string> lines = reported_by(row.run, {});
      std::string all;
      for (const std::string& line : lines) all += line + " ";
      CHECK_MESSAGE(lines.contains(at(row.file, row.one)), all);
      CHECK_MESSAGE(lines.contains(at(row.file, row.other)), all);
    }
    __sanitizer_set_report_path("stderr");
  }
}
