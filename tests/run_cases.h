// What every test program's main does: run the cases, and fail where none matched (by itself a doctest filter that
// matches nothing passes), a case belongs to no suite (ctest asks for suites, so that it would never run) or asserts
// nothing. For the one file of a program that has doctest's implementation.
#pragma once

#include <doctest/doctest.h>

#include <cstdio>

namespace coppice {

namespace run_cases_detail {

inline int num_matched = 0;
inline const char* case_without_suite = nullptr;
inline const char* case_without_assertion = nullptr;
inline const char* current_case = "";

inline void check_suite(const doctest::TestCaseData& test_case) {
  if (*test_case.m_test_suite == '\0') case_without_suite = test_case.m_name;
}

struct CountingListener : doctest::IReporter {
  explicit CountingListener(const doctest::ContextOptions&) {}
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    num_matched = static_cast<int>(stats.numTestCasesPassingFilters);
  }
  void test_case_start(const doctest::TestCaseData& test_case) override {
    check_suite(test_case);
    current_case = test_case.m_name;
  }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    if (stats.numAssertsCurrentTest == 0) case_without_assertion = current_case;
  }
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData& test_case) override { check_suite(test_case); }
};
REGISTER_LISTENER("counting", 1, CountingListener);

}  // namespace run_cases_detail

/// The program's exit code.
inline int run_cases(int argc, char** argv) {
  using namespace run_cases_detail;
  doctest::Context context(argc, argv);
  const int result = context.run();
  if (context.shouldExit()) return result;  // --help, --list-test-cases
  if (num_matched == 0) {
    std::fputs("no test case matched\n", stderr);
    return 1;
  }
  if (case_without_suite != nullptr) {
    std::fprintf(stderr, "test case '%s' belongs to no TEST_SUITE\n", case_without_suite);
    return 1;
  }
  if (case_without_assertion != nullptr) {
    std::fprintf(stderr, "test case '%s' asserted nothing\n", case_without_assertion);
    return 1;
  }
  return result;
}

}  // namespace coppice
