// One line and the right code, wherever the line may go.
#include "recipes/run/exit_code.h"

#include <c10/util/Exception.h>
#include <doctest/doctest.h>
#include <fcntl.h>

#include "src/base/errors.h"
#include "src/tensors/kernels/launch.h"
#include "tests/recipes/program.h"

using namespace coppice::test;

TEST_SUITE("faults") {
  TEST_CASE("an error that cannot be printed keeps its exit code [7]") {
    const Scratch scratch("unprinted");
    const auto into = [&](const std::function<void()>& in_child) {
      return run(scratch.path, {"run", "missing.toml"}, in_child);
    };
    const Outcome full = into([] { dup2(open("/dev/full", O_WRONLY), STDERR_FILENO); });
    CHECK(full.signal == 0);
    CHECK(full.code == 2);
    const Outcome closed = into([] {
      int ends[2];
      if (pipe(ends) != 0) _exit(122);
      dup2(ends[1], STDERR_FILENO);
      close(ends[0]);
      close(ends[1]);
    });
    CHECK(closed.signal == 0);
    CHECK(closed.code == 2);
  }

  TEST_CASE("a result that cannot be printed is exit 4") {
    const Scratch scratch("no_result");
    write_run(scratch.path, "small.toml");
    for (const std::vector<std::string>& command :
         {std::vector<std::string>{"config", "small.toml"}, {"plan", "small.toml"}, {"--version"}}) {
      CAPTURE(command.front());
      const Outcome full = run(scratch.path, command, [] { dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO); });
      CHECK(full.code == 4);
    }
  }

  TEST_CASE("a run's error is the last line of its log.txt") {
    const Scratch scratch("logged");
    write_run(scratch.path, "small.toml");
    REQUIRE(run(scratch.path, {"run", "small.toml"}).code == 0);
    fs::remove(scratch.path / "runs/small/dense/model/part-00000.h5");
    const Outcome outcome = run(scratch.path, {"run", "small.toml"});
    CHECK(outcome.code == 3);
    CHECK(slurp(scratch.path / "runs/small/log.txt").ends_with(outcome.err));
  }
}

TEST_SUITE("unit") {
  TEST_CASE("what the file system refuses is exit 4") {
    CHECK(coppice::run_guarded(
              []() -> int { throw fs::filesystem_error("gone", std::make_error_code(std::errc::io_error)); }) == 4);
    CHECK(coppice::run_guarded([]() -> int { throw std::runtime_error("ours"); }) == 1);
  }

  TEST_CASE("what a device or its libraries refuse: memory is exit 7 with what lowers it, anything else exit 1") {
    const auto code_of = [](const char* text) {
      return coppice::run_guarded([&]() -> int { TORCH_CHECK(false, text); });
    };
    CHECK(code_of("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.00 GiB") == 7);
    CHECK(code_of("CUDA error: out of memory") == 7);
    CHECK(code_of("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`") == 7);
    CHECK(code_of("CUDNN_STATUS_ALLOC_FAILED") == 7);
    CHECK(code_of("CUDA error: an illegal memory access was encountered") == 1);
    const auto code_of_launch = [](int error) {
      return coppice::run_guarded([&]() -> int {
        coppice::check_launch(error, "swiglu_backward");
        return 0;
      });
    };
    CHECK(code_of_launch(0) == 0);
    CHECK(code_of_launch(2) == 7);    // cudaErrorMemoryAllocation
    CHECK(code_of_launch(700) == 1);  // cudaErrorIllegalAddress
    CHECK_THROWS_WITH(coppice::check_launch(700, "swiglu_backward"), doctest::Contains("swiglu_backward: "));
    CHECK_THROWS_WITH(coppice::check_launch(2, "label_mix"),
                      doctest::Contains("a smaller micro_batch_tokens or batch_tokens"));
  }
}
